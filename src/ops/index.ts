/** All ops by name. */
import { TandemError } from '../errors.ts';
import { add } from './add.ts';
import { attention } from './attention.ts';
import { embed } from './embed.ts';
import { experts } from './experts.ts';
import { gatherRows } from './gather-rows.ts';
import { glu } from './glu.ts';
import { kvAppend } from './kv-append.ts';
import { linear } from './linear.ts';
import { mla } from './mla.ts';
import { mlaAppend } from './mla-append.ts';
import type { Op } from './op.ts';
import { rankExperts } from './rank-experts.ts';
import { rmsNorm } from './rms-norm.ts';
import { rope } from './rope.ts';
import { router } from './router.ts';
import { sample } from './sample.ts';
import { copy, submit, wait } from './transfer.ts';

export const OPS: ReadonlyMap<string, Op> = new Map(
  [
    embed,
    rmsNorm,
    linear,
    rope,
    kvAppend,
    mlaAppend,
    attention,
    mla,
    router,
    rankExperts,
    experts,
    glu,
    add,
    gatherRows,
    sample,
    copy,
    submit,
    wait,
  ].map((op) => [op.name, op]),
);

/** The op of that name; PROGRAM_INVALID where there is none. */
export function opNamed(name: string): Op {
  const op = OPS.get(name);
  if (op) return op;
  throw new TandemError('PROGRAM_INVALID', {
    room: 'ops',
    rule: `ops are ${[...OPS.keys()].join(', ')}`,
    given: `"${name}" was asked for`,
  });
}
