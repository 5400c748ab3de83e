/** From a measured speed to an answer: normal or not, why, and what to do. Pure. */
import { formatRate } from '../terminal.ts';
import type { Finding } from './finding.ts';
import { PARTS, type Part, type Speed } from './speed.ts';

export interface Ceiling {
  /** Bytes per second that the threads of the model read from memory. */
  readonly bandwidth: number;
  /** Threads of the model, and what this machine would take by itself. */
  readonly threads: number;
  readonly defaultThreads: number;
}

/** Of the bandwidth: public engines reach 0.31 to 0.54 in most cases, 0.76 in the best. */
const NORMAL = 0.55;
const SLOW = 0.35;
/** Tokens of so few bytes are the fixed costs' business, not the memory's. */
const SMALL_TOKEN_SECONDS = 0.004;

/** Share of the memory's bandwidth that the weights of a token are read with, [0, 1] and a little above on a noisy machine. */
export function shareOf({ bytes, tokensPerSecond }: Speed, { bandwidth }: Ceiling): number {
  return (bytes * tokensPerSecond) / bandwidth;
}

/** The answer first, its causes after it. */
export function verdict(speed: Speed, ceiling: Ceiling): Finding[] {
  const share = shareOf(speed, ceiling);
  const found = `${formatRate(speed.tokensPerSecond)} tok/s, ${(share * 100).toFixed(0)} % of what the memory allows (${formatRate(ceiling.bandwidth / speed.bytes)} tok/s)`;
  const named = causes(speed, ceiling);
  if (speed.bytes / ceiling.bandwidth < SMALL_TOKEN_SECONDS)
    return [
      {
        name: 'speed',
        state: 'ok',
        found: `${formatRate(speed.tokensPerSecond)} tok/s`,
        why: 'the model is so small that fixed costs decide, not the memory',
      },
      ...named,
    ];
  if (share >= NORMAL) return [{ name: 'speed', state: 'ok', found: `normal: ${found}` }, ...named];
  const words = share >= SLOW ? 'below what is usual' : 'slow';
  const why = named.some(({ state }) => state === 'problem')
    ? undefined
    : 'nothing below explains it: the memory may be shared with other machines, or the kernels of these formats are bound by arithmetic';
  return [{ name: 'speed', state: share >= SLOW ? 'note' : 'problem', found: `${words}: ${found}`, why }, ...named];
}

function causes(speed: Speed, ceiling: Ceiling): Finding[] {
  const { counters, parts } = speed;
  const { pagesFromDisk, preemptions, stolen, throttled } = counters;
  const total = PARTS.reduce((sum, part) => sum + parts[part].milliseconds, 0);
  const share = (part: Part) => parts[part].milliseconds / total;
  const percent = (x: number) => `${(x * 100).toFixed(0)} %`;
  const all: (Finding | false)[] = [
    pagesFromDisk >= 1 && {
      name: 'weights from the disk',
      state: 'problem',
      found: `${formatRate(pagesFromDisk)} pages a token`,
      why: 'the model does not fit the memory that is free',
      fix: 'close what is large, take a smaller quant (tandem plan says which), or load with --load pages',
    },
    throttled && {
      name: 'control group',
      state: 'problem',
      found: 'it stopped this process for having used up its share of processor time',
      fix: 'raise the CPU limit of the container, or take fewer --threads than the limit',
    },
    stolen > 0.05 && {
      name: 'hypervisor',
      state: 'problem',
      found: `${percent(stolen)} of the time went to other machines on this host`,
      fix: 'a machine with dedicated cores',
    },
    preemptions > 50 * ceiling.threads && {
      name: 'other work',
      state: 'problem',
      found: `another process took a core ${preemptions.toFixed(0)} times a second`,
      fix: 'look at top; leave a core free with --threads',
    },
    ceiling.threads < ceiling.defaultThreads && {
      name: 'threads',
      state: 'problem',
      found: `${ceiling.threads}, where ${ceiling.defaultThreads} can be had`,
      fix: 'leave --threads out',
    },
    share('attention') > 0.5 && {
      name: 'attention',
      state: 'note',
      found: `${percent(share('attention'))} of a token's time`,
      why: 'it grows with the context',
      fix: 'a shorter context, if it can be',
    },
    share('waiting') > 0.2 && {
      name: 'waiting',
      state: 'note',
      found: `${percent(share('waiting'))} of a token's time is between the steps`,
      why: 'on small models, and where threads lose their cores and the others wait for them',
    },
  ];
  return all.filter((finding) => finding !== false);
}
