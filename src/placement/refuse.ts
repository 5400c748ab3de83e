/** Refuses, with numbers, before anything is loaded, what a machine cannot hold. */
import { TandemError } from '../errors.ts';
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { type Fit, type FitRequest, fitModel, gigabytes, type Room } from './fit.ts';
import type { MatrixWork, Sizes } from './sizes.ts';

/** Formats of experts in the order in which people give bits away. */
const SMALLER: readonly FormatName[] = ['q8_0', 'q6_k', 'q5_k', 'q4_k', 'iq4_xs', 'q3_k', 'iq3_xxs', 'q2_k', 'iq2_xxs', 'iq1_s']; // biome-ignore format: one line

/** PLACEMENT_IMPOSSIBLE where the fit is `no`. */
export function refuseImpossible(sizes: Sizes, room: Room, request: FitRequest, fit: Fit): void {
  if (fit.fits !== 'no') return;
  const vram = fit.vram > 0 ? `${gigabytes(fit.vram)} VRAM + ` : '';
  const have = fit.vramLimit > 0 ? `${gigabytes(fit.vramLimit)} VRAM + ` : '';
  const least = fit.leastRam < fit.ram ? ` (${gigabytes(fit.leastRam)} with the experts on the disk)` : '';
  const smaller = largestThatFits(sizes, room, request);
  const wanted = request.context === undefined ? '' : ', or a shorter context';
  throw new TandemError('PLACEMENT_IMPOSSIBLE', {
    room: 'placement',
    rule: `this model needs ${vram}${gigabytes(fit.ram)} RAM${least} for a context of ${fit.context} tokens`,
    given: `you have ${have}${gigabytes(fit.ramLimit)} RAM`,
    fix: smaller
      ? `a quantization that fits: ${smaller.format}, about ${gigabytes(smaller.bytes)}${wanted}`
      : `no quantization of it fits; free memory${wanted}, or take a smaller model`,
  });
}

/** The most bits of all matrices (below those of the model) with which it would be in memory; about, by bits a weight. */
function largestThatFits(
  sizes: Sizes,
  room: Room,
  request: FitRequest,
): { format: FormatName; bytes: number } | undefined {
  for (const format of SMALLER) {
    const other = inFormat(sizes, format);
    if (other.weightBytes >= sizes.weightBytes) continue;
    if (fitModel(other, room, request).fits === 'memory') return { format, bytes: other.weightBytes };
  }
  return undefined;
}

/** Experts in a format, the dense part in it too, but in no fewer than about four bits: as small files are made. */
function inFormat(sizes: Sizes, format: FormatName): Sizes {
  const bits = (name: FormatName) => (quantFormat(name).blockBytes * 8) / quantFormat(name).blockSize;
  const dense = bits(format) < 4 ? 'q4_k' : format;
  const matrices = sizes.matrices.map((work): MatrixWork => {
    const wanted = work.role === 'routed' ? format : dense;
    if (work.op === 'other' || work.format === 'f32' || bits(wanted) >= bits(work.format)) return work;
    return { ...work, format: wanted, bytes: (work.weights * bits(wanted)) / 8 };
  });
  const of = (role?: MatrixWork['role']) =>
    matrices.reduce((sum, work) => sum + (role === undefined || work.role === role ? work.bytes : 0), 0);
  // A table that is also the head counts twice here and once there: the difference stays.
  const twice = sizes.matrices.reduce((sum, { bytes }) => sum + bytes, 0) - sizes.weightBytes;
  return { ...sizes, matrices, routedBytes: of('routed'), weightBytes: of() - twice };
}
