/** A plan as people read it: the verdict first, then a row a quantization, then where the time of a token goes. */
import { type Advice, READING } from '../../placement/advice.ts';
import { gigabytes } from '../../placement/fit.ts';
import { describeHeld, describeHits } from '../../placement/held-experts.ts';
import type { Plan } from '../../placement/plan.ts';
import { availableOf, type MachineProfile, threadsOf, usedGpus } from '../../placement/profile.ts';
import { about, formatBytes, formatRate, paint, table } from '../terminal.ts';
import type { Sized, SizedQuant } from './candidates.ts';

export interface Row extends SizedQuant {
  readonly plan?: Plan;
}

export interface Planned {
  readonly sized: Sized;
  readonly rows: readonly Row[];
  readonly advice: Advice;
  readonly profile: MachineProfile;
  /** What would do, where nothing good is to be had. */
  readonly instead: readonly string[];
  /** Bytes that are free where a download would go. */
  readonly diskFree?: number;
}

export function renderPlan(planned: Planned): string {
  const { rows, advice, profile } = planned;
  const lines = [...headline(planned), paint('dim', machineLine(profile)), ''];
  const gpus = usedGpus(profile).length > 0;
  const columns = (cells: readonly string[]) => cells.filter((_, column) => gpus || column !== VRAM);
  const body = rows.map((row) => columns(cellsOf(row, row.quant === advice.quant)));
  lines.push(table([columns(HEAD), ...body], gpus ? 'llrrlrrrrrrl' : 'llrrlrrrrrl'));
  const told = rows.find(({ quant }) => quant === (advice.quant ?? advice.runs));
  if (told?.plan?.decode) lines.push('', `${told.quant}: ${told.plan.fit.reason}; ${detail(told.plan)}`);
  for (const { quant, problem } of rows) if (problem !== undefined) lines.push(paint('yellow', `${quant}: ${problem}`));
  return `${lines.join('\n')}\n`;
}

const HEAD = ['', 'quant', 'size', 'bits', 'fits', 'RAM', 'VRAM', 'context', 'load', 'prefill tok/s', 'decode tok/s', 'limited by']; // biome-ignore format: a row of a table
const VRAM = HEAD.indexOf('VRAM');

/** The verdict, and where it is a bad one what would do; else the next command. */
function headline({ sized: { model, source }, rows, advice, instead, diskFree }: Planned): string[] {
  const { quant, runs, why } = advice;
  const several = rows.length > 1;
  const row = rows.find((one) => one.quant === (quant ?? runs));
  const rate = row?.plan?.decode?.tokensPerSecond.expected;
  const speed = rate === undefined ? '' : `about ${about(rate)} tok/s`;
  const wouldDo = instead.map((each, i) => `${i === 0 ? 'what would do: ' : '               '}${each}`);
  if (quant === undefined) {
    const best = speed && `; ${speed}${several ? ` at best (${runs})` : ''}`;
    return [paint(['bold', 'red'], `${model}: not on this machine: ${why}${best}`), ...wouldDo];
  }
  if (runs !== undefined)
    return [paint(['bold', 'yellow'], `${model}: ${rate! < READING ? 'slow on this machine' : 'on the disk of this machine'}: ${why}; ${speed}${several ? ` with ${quant}` : ''}`), ...wouldDo]; // biome-ignore format: one thought a line
  const verdict = several ? `take ${quant}: ${why}` : 'fits';
  const lines = [paint('bold', `${model}: ${verdict}${several ? '; ' : ', '}${speed}`)];
  if (source !== 'hub') return lines;
  const { fileBytes = 0 } = row ?? {};
  const room = diskFree !== undefined && diskFree < fileBytes;
  lines.push(
    room
      ? paint(
          'yellow',
          `its ${formatBytes(fileBytes)} exceed the ${formatBytes(diskFree)} that are free on the disk of the cache (HF_HOME)`,
        )
      : paint('dim', `tandem pull ${model}:${quant}`),
  );
  return lines;
}

function cellsOf({ quant, fileBytes, plan, problem }: Row, advised: boolean): string[] {
  const mark = advised ? '→' : '';
  if (!plan) {
    const size = fileBytes === undefined ? '–' : formatBytes(fileBytes);
    return [mark, quant, size, '–', '–', '–', '–', '–', '–', '–', '–', shorten(problem ?? '')];
  }
  const { fit } = plan;
  return [
    mark,
    quant,
    formatBytes(fileBytes ?? plan.weightBytes),
    plan.bitsPerWeight.toFixed(1),
    fit.fits === 'memory' ? 'yes' : fit.fits === 'disk' ? 'on disk' : 'no',
    formatBytes(Math.round(fit.ram)),
    fit.vram > 0 ? formatBytes(Math.round(fit.vram)) : '–',
    contextOf(fit.context),
    plan.loadSeconds === undefined ? '–' : duration(plan.loadSeconds),
    range(plan.prefill),
    range(plan.decode),
    plan.bottleneck,
  ];
}

function machineLine(profile: MachineProfile): string {
  const { cpu, memory, gpus, disk } = profile;
  const cards = gpus
    .map(({ name, memoryBytes, refused }) => `, ${name} ${gigabytes(memoryBytes)}${refused ? ' (not used)' : ''}`)
    .join('');
  const reads = `${gigabytes(memory.bandwidth)}/s${memory.measured ? '' : ' by its data sheet'}`;
  return `${profile.name ?? cpu.model}: ${cpu.cores} cores (${cpu.isa}), ${threadsOf(profile)} threads, ${gigabytes(availableOf(profile))} of ${gigabytes(memory.bytes)} available at ${reads}${cards}${disk ? `, disk ${gigabytes(disk.bandwidth)}/s` : ''}`;
}

function detail({ decode, prefill, prompt, hot }: Plan): string {
  if (!decode || !prefill) return '';
  const parts = Object.entries(decode.parts)
    .filter(([, part]) => part > decode.seconds / 100)
    .sort((a, b) => b[1] - a[1])
    .map(([name, part]) => `${name} ${short(part)}`);
  const streamed = prefill.streamed ? ', experts streamed to the GPU' : '';
  const held = hot ? `; beside the CPU the GPU holds ${describeHeld(hot)} (${gigabytes(hot.bytes)}), ${describeHits(hot)}: ${formatRate(decode.tokensPerSecond.expected)} instead of ${formatRate(hot.without)} tok/s` : ''; // biome-ignore format: one thought a line
  return `a token takes ${short(decode.seconds)} (${parts.join(', ')})${held}; a prompt of ${prompt} tokens takes ${duration(prefill.seconds)}, ${prefill.rows} at a time${streamed}`;
}

function range(prediction: Plan['decode']): string {
  if (!prediction) return '–';
  const { low, high } = prediction.tokensPerSecond;
  return `${formatRate(low)}–${formatRate(high)}`;
}

function contextOf(tokens: number): string {
  return tokens >= 10_000 ? `${Math.round(tokens / 1000)}k` : String(tokens);
}

function short(seconds: number): string {
  return seconds >= 1 ? `${formatRate(seconds)} s` : `${formatRate(seconds * 1000)} ms`;
}

function duration(seconds: number): string {
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return seconds >= 10 ? `${Math.round(seconds)} s` : `${seconds.toPrecision(2)} s`;
}

function shorten(text: string): string {
  return text.length > 60 ? 'see below' : text;
}
