// Which way of holding experts on a GPU catches most, simulated: over the routing of the shipped model on its puzzles (the first
// half chooses the pins, the second half is judged), and over drawn routing of DeepSeek-V3's shape:
//   node bench/hot-experts.mjs [--write FILE]          (writes a cut of the recorded routing, for tests)
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { nativeBackend } from '../dist/backend/native/backend.js';
import { openCheckpoint } from '../dist/formats/open.js';
import { buildProgram } from '../dist/models/index.js';
import { drawRouting, followed, lastUsed, pinned, simulate } from '../dist/placement/hot-simulation.js';
import { lower } from '../dist/placement/lower.js';
import { createTokenizer } from '../dist/text/tokenizer.js';

const jug = fileURLToPath(new URL('../models/jug/', import.meta.url));
const puzzles = JSON.parse(readFileSync(`${jug}puzzles.json`, 'utf8'));

/** [tokens, layers, chosen] of one text each: what decoding it would have asked for. */
async function record(texts) {
  const checkpoint = await openCheckpoint(`${jug}hf`);
  const { program } = await buildProgram(checkpoint);
  const { encode } = await createTokenizer(checkpoint).then((tokenizer) => ({
    encode: (text) => tokenizer.encode(text, { parseSpecial: true }),
  }));
  const limits = { pages: 32, maxRows: 2048, maxOutputs: 1 };
  const placed = lower(program, { device: 'cpu' }, { exact: true });
  const executable = await nativeBackend().prepare(placed, checkpoint, limits);
  const routers = placed.steps.flatMap(({ op }, index) => (op === 'router' ? [index] : []));
  const { columns: chosen } = placed.values[placed.steps[routers[0]].outputs[0]];
  const parts = [];
  for (const text of texts) {
    const tokens = Int32Array.from(encode(text)).subarray(0, 2048);
    const pages = Int32Array.from({ length: Math.ceil(tokens.length / 64) }, (_, page) => page);
    const sequence = { slot: 0, firstRow: 0, rows: tokens.length, firstPosition: 0, pages };
    const stepper = await executable.start({ tokens, sequences: [sequence], outputs: [], wantLogits: false });
    const ids = new Uint8Array(tokens.length * routers.length * chosen);
    for (let step = 0; step < placed.steps.length; step++) {
      await stepper.step(step);
      const layer = routers.indexOf(step);
      if (layer < 0) continue;
      const rows = await stepper.read(placed.steps[step].outputs[0]);
      for (let row = 0; row < tokens.length; row++)
        ids.set(rows.subarray(row * chosen, (row + 1) * chosen), (row * routers.length + layer) * chosen);
    }
    await stepper.finish();
    parts.push(ids);
  }
  await executable.dispose();
  await checkpoint.close();
  return { experts: 16, layers: routers.length, chosen, ids: Uint8Array.from(parts.flatMap((ids) => [...ids])) };
}

/** mulberry32 */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// A server's CPU with eight channels and a card behind PCIe 4: what kernels and links reach, not data sheets.
const RATES = { cpu: 150e9, dram: 200e9, gpu: 700e9, pcie: 25e9 };

function judge(title, before, trace, slots, room) {
  console.log(
    `\n${title}: ${slots} of ${trace.experts} experts held, at most ${room} uploads a token in the background`,
  );
  const rows = [
    ['pins', pinned(before, slots), {}],
    ['LRU, misses uploaded', lastUsed(trace, slots), { waits: true }],
  ];
  for (const halfLife of [8, 16, 32, 64, 128, 256])
    rows.push([`follows, half-life ${halfLife}`, followed(trace, slots, RATES, halfLife), { room }]);
  for (const hysteresis of [0, 1, 2, 4])
    rows.push([`follows, 64, hysteresis ${hysteresis}`, followed(trace, slots, RATES, 64, hysteresis), { room }]);
  for (const [name, residency, options] of rows) {
    const { hits, uploadsPerToken, time } = simulate(trace, residency, RATES, options);
    console.log(
      [
        name.padEnd(26),
        `hits ${(hits * 100).toFixed(1)} %`,
        `uploads ${uploadsPerToken.toFixed(2)}`,
        `time ${time.toFixed(3)}`,
      ].join('\t'),
    );
  }
}

const texts = puzzles.map(
  ({ prompt, thinking, answer }) =>
    `<｜User｜>${prompt}<｜Assistant｜><think>\n${thinking}\n</think>\n\n${answer}<｜end▁of▁sentence｜>`,
);
const half = texts.length / 2;
const first = await record(texts.filter((_, i) => i % 2 === 0).slice(0, half));
const second = await record(texts.filter((_, i) => i % 2 === 1));
const at = process.argv.indexOf('--write');
if (at >= 0) {
  const cut = 1000 * second.layers * second.chosen;
  writeFileSync(process.argv[at + 1], Buffer.concat([first.ids.subarray(0, cut), second.ids.subarray(0, cut)]));
}
for (const slots of [2, 4]) judge(`jug, ${second.ids.length / 16} tokens`, first, second, slots, 1);
const shape = { experts: 256, layers: 4, chosen: 8, tokens: 4000, subject: 500, skew: 1.2, always: 0.7, stay: 0.3 };
const drawn = drawRouting({ ...shape, tokens: 8000 }, random(1));
const cut = 4000 * shape.layers * shape.chosen;
const [before, after] = [0, 1].map((part) => ({ ...drawn, ids: drawn.ids.subarray(part * cut, (part + 1) * cut) }));
for (const slots of [26, 32]) for (const room of [1, 4]) judge('drawn, V3 shape', before, after, slots, room);
