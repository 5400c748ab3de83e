/**
 * What share of a model's choices were experts that GPUs held, as runs here measured it: `$XDG_CACHE_HOME/tandem/expert-hits.json`, for
 * `explain` to say beside what is expected.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { SharingCounts } from '../backend/backend.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import type { Program } from '../program/program.ts';
import { profilePath } from './this-machine.ts';

export interface KeptHits {
  /** Experts of all layers that there was room for. */
  readonly slots: number;
  /** Choices of passes that generate. */
  readonly hits: number;
  readonly misses: number;
}

/** Models that are remembered: the latest. */
const MOST_MODELS = 32;

export function hitsPath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  return join(dirname(profilePath(env)), 'expert-hits.json');
}

/** How a model is known here. */
export function hitsKey({ name }: Pick<Checkpoint, 'name'>, program: Program): string {
  return `${name} (${program.name})`;
}

/** Undefined where nothing was measured. */
export async function readHits(model: string): Promise<KeptHits | undefined> {
  return (await readAll())[model];
}

/** Adds to what runs with as much room measured. A folder that cannot be written is no reason to fail. */
export async function keepHits(model: string, { slots, hits, misses }: SharingCounts): Promise<void> {
  if (hits + misses === 0) return;
  const { [model]: before, ...others } = await readAll();
  const same = before?.slots === slots ? before : { hits: 0, misses: 0 };
  const now = { slots, hits: same.hits + hits, misses: same.misses + misses };
  const latest = Object.fromEntries([...Object.entries(others), [model, now]].slice(-MOST_MODELS));
  const path = hitsPath();
  const part = `${path}.${process.pid}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(part, `${JSON.stringify(latest, null, 2)}\n`);
    await rename(part, path);
  } catch {
    await rm(part, { force: true }).catch(() => {});
  }
}

/** For people: `43 % of 12345 choices with room for 1508 experts`. */
export function describeHits({ slots, hits, misses }: KeptHits): string {
  return `${Math.round((100 * hits) / (hits + misses))} % of ${hits + misses} choices with room for ${slots} experts`;
}

/** What is damaged counts as nothing. */
async function readAll(): Promise<Readonly<Record<string, KeptHits>>> {
  try {
    const kept: unknown = JSON.parse(await readFile(hitsPath(), 'utf8'));
    if (typeof kept !== 'object' || kept === null) return {};
    const whole = ({ slots, hits, misses }: KeptHits) => [slots, hits, misses].every(Number.isFinite) && hits + misses > 0; // biome-ignore format: one thought a line
    return Object.fromEntries(Object.entries(kept).filter(([, entry]) => entry !== null && whole(entry)));
  } catch {
    return {};
  }
}
