/** The live view of the experts: a cell an expert, a row a layer, brightness by how lately and how often it fired. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { type ExpertsHeat, expertsExist, heat, heatAt } from './experts.ts';
import { IconButton } from './icon-button.tsx';
import { expertsShown } from './panel.ts';
import { fill, words } from './words.ts';

/** Heat above which an expert is counted as warm: about two fades. */
const WARM = 0.13;
/** Brightness of an expert that just fired, for the first time in long, beside busy ones. */
const FAINTEST = 0.15;
/** Between two pictures. */
const FRAME_MS = 100;

/** Draws one pixel a cell; CSS enlarges it. Returns how many are warm. */
function draw(canvas: HTMLCanvasElement, map: ExpertsHeat, now: number): number {
  const { experts, layers } = map;
  if (canvas.width !== experts || canvas.height !== layers.length) {
    canvas.width = experts;
    canvas.height = layers.length;
  }
  const context = canvas.getContext('2d')!;
  const picture = context.createImageData(experts, layers.length);
  // From memory: amber; from the mapped file, which may wait for the disk: blue.
  const [r, g, b] = map.place === 'ram' ? [255, 138, 20] : [40, 140, 255];
  let warm = 0;
  for (let row = 0; row < layers.length; row++) {
    const start = row * experts;
    const most = Math.max(...map.lately.subarray(start, start + experts), Number.MIN_VALUE);
    for (let i = start; i < start + experts; i++) {
      const h = heatAt(map, i, now);
      if (h > WARM) warm++;
      // All experts of a layer may fire between two looks: the busiest one gives the measure.
      picture.data.set([r, g, b, 255 * h * (FAINTEST + (1 - FAINTEST) * (map.lately[i] / most))], i * 4);
    }
  }
  context.putImageData(picture, 0, 0);
  return warm;
}

export function ExpertsPanel() {
  const w = words.value;
  const canvas = useRef<HTMLCanvasElement>(null);
  const warm = useSignal(0);
  const cell = useSignal('');
  const shown = expertsShown.value && expertsExist.value;
  useEffect(() => {
    if (!shown) return undefined;
    const timer = setInterval(() => {
      if (canvas.current && heat.value && !document.hidden)
        warm.value = draw(canvas.current, heat.value, performance.now());
    }, FRAME_MS);
    return () => clearInterval(timer);
  }, [shown]);
  if (!shown) return null;
  const map = heat.value;
  const point = (event: MouseEvent) => {
    const area = canvas.current;
    if (!area || !map) return;
    const column = Math.floor((event.offsetX / area.clientWidth) * map.experts);
    const row = Math.floor((event.offsetY / area.clientHeight) * map.layers.length);
    const layer = fill(w.layer, { n: map.layers[row] ?? '' });
    cell.value = `${layer} · ${fill(w.expert, { n: column })} · ×${map.counts[row * map.experts + column] ?? 0}`;
  };
  const state = map
    ? `${fill(w.activeShare, { n: warm.value, all: map.last.length })} · ${map.place === 'ram' ? w.fromRam : w.fromMapped}`
    : w.expertsIdle;
  return (
    <section class="experts" aria-label={w.experts}>
      <div class="panel-head">
        <span>
          <b>{w.experts}</b> <span class="faint">{w.expertsWhat}</span>
        </span>
        <IconButton
          icon="close"
          label={w.close}
          onClick={() => {
            expertsShown.value = false;
          }}
        />
      </div>
      {map && (
        <div class="experts-map">
          <div class="axis" aria-hidden="true">
            <span>{fill(w.layer, { n: map.layers[0] })}</span>
            <span>{fill(w.layer, { n: map.layers.at(-1)! })}</span>
          </div>
          <canvas
            ref={canvas}
            role="img"
            aria-label={state}
            style={{ height: `${Math.min(220, Math.max(32, map.layers.length * 8))}px` }}
            onMouseMove={point}
            onMouseLeave={() => {
              cell.value = '';
            }}
          />
          <div class="axis across" aria-hidden="true">
            <span>{fill(w.expert, { n: 0 })}</span>
            <span>{fill(w.expert, { n: map.experts - 1 })}</span>
          </div>
        </div>
      )}
      <p class="faint">{cell.value || state}</p>
    </section>
  );
}
