/** What would do, where a machine is too small or too slow for a model: memory, other limits, another model. */
import { PUBLIC_CONFIGS, type PublicModel } from '../../models/public-configs.ts';
import { type EnoughMemory, enoughMemory, looserLimits, READING, USABLE } from '../../placement/advice.ts';
import { gigabytes } from '../../placement/fit.ts';
import { type Plan, type PlanRequest, plan } from '../../placement/plan.ts';
import type { MachineProfile } from '../../placement/profile.ts';
import type { Program } from '../../program/program.ts';
import { about } from '../terminal.ts';
import { usualQuant } from './candidates.ts';

interface Row {
  readonly quant: string;
  readonly program?: Program;
  readonly plan?: Plan;
}

/** One a thought, the nearest first; empty where nothing of it helps. */
export async function whatWouldDo(
  rows: readonly Row[],
  profile: MachineProfile,
  request: PlanRequest,
): Promise<string[]> {
  const candidates = rows.filter((row): row is Required<Row> => row.plan !== undefined);
  const looser = looserLimits(candidates, profile, request).map(
    ({ limit, candidate: { quant, plan } }) =>
      `without --${limit}: ${nameOf(quant, rows)}${limit === 'context' ? `a context of ${plan.fit.context} tokens, ` : ''}${speedOf(plan)}`,
  );
  if (looser.length > 0) return looser;
  const inMemory = candidates.every(({ plan }) => plan.fit.fits === 'memory');
  const memory = inMemory ? [] : enoughMemory(candidates, profile, request);
  const weightBytes = Math.max(...candidates.map(({ plan }) => plan.weightBytes));
  const other = await smaller(weightBytes, profile, request);
  return [...(memory.length > 0 ? [memoryText(memory, rows, profile)] : []), ...(other ? [other] : [])];
}

function memoryText(memory: readonly EnoughMemory[], rows: readonly Row[], profile: MachineProfile): string {
  const each = memory.map(({ quant, ram, tokensPerSecond }) => {
    const then = `about ${about(tokensPerSecond)} tok/s`;
    const speed = tokensPerSecond < USABLE ? `even then ${then}` : `then ${then}`;
    return `${gigabytes(ram)}${rows.length > 1 ? ` for ${quant}` : ''} (${speed})`;
  });
  const slow = memory.every(({ tokensPerSecond }) => tokensPerSecond < USABLE);
  const faster = slow ? `, and faster memory than ${gigabytes(profile.memory.bandwidth)}/s` : '';
  return `free memory of ${each.join(' or ')}${faster}`;
}

/** The largest known model below so many bytes that is in memory and as fast as people read; else the fastest. */
async function smaller(
  weightBytes: number,
  profile: MachineProfile,
  { ram, vram, prompt }: PlanRequest,
): Promise<string | undefined> {
  let found: { name: string; quant: string; plan: Plan } | undefined;
  for (const name of Object.keys(PUBLIC_CONFIGS) as PublicModel[]) {
    const { quant, program } = await usualQuant(name);
    const made = plan(program, profile, { ram, vram, prompt });
    if (made.fit.fits !== 'memory' || made.weightBytes >= weightBytes) continue;
    if (found === undefined || worth(made) > worth(found.plan)) found = { name, quant, plan: made };
  }
  return found && `a smaller model: ${found.name} in ${found.quant} (here ${speedOf(found.plan)})`;
}

/** Speed up to what people read with, then size. */
function worth({ decode, weightBytes }: Plan): number {
  const speed = decode?.tokensPerSecond.expected ?? 0;
  return speed >= READING ? READING + weightBytes : speed;
}

function nameOf(quant: string, rows: readonly Row[]): string {
  return rows.length > 1 ? `${quant}, ` : '';
}

function speedOf({ decode }: Plan): string {
  return `about ${about(decode?.tokensPerSecond.expected ?? 0)} tok/s`;
}
