/**
 * What was right when GPUs were checked, by card, driver and kernels: `$XDG_CACHE_HOME/tandem/gpu-checks.json`, so that the next start
 * need not look again.
 */
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { GpuInfo } from '../backend/native/binding.ts';
import { gpuKernels, knownGpus } from '../backend/native/gpus.ts';
import { packageVersion } from '../backend/native/load.ts';
import { profilePath } from './this-machine.ts';

/** Goes up when a release checks more, or otherwise. */
const VERSION = 1;

/** A card, and what else decides what its kernels compute. */
export interface Card {
  readonly name: string;
  readonly key: string;
}

/** Of devices by name. */
export async function cardsOf(devices: Iterable<string>): Promise<Map<string, Card>> {
  const { cuda, gpus } = knownGpus();
  const kernels = await hashOf(gpuKernels().path);
  const of = (device: string): Card => {
    const gpu = gpus.find((each) => each.device === device);
    return { name: `${device} ${gpu?.name ?? ''}`.trim(), key: cardKey(gpu, cuda, kernels) };
  };
  return new Map([...devices].map((device) => [device, of(device)]));
}

function cardKey(gpu: GpuInfo | undefined, cuda: string, kernels: string): string {
  const about = [gpu?.name, gpu?.capability, gpu?.bus, gpu?.memoryBytes, cuda, driverVersion(), kernels];
  return digest([VERSION, packageVersion(), ...about]);
}

/** The driver of NVIDIA says its version to the system; CUDA's alone stays the same over many of them. */
function driverVersion(): string {
  try {
    return readFileSync('/proc/driver/nvidia/version', 'utf8');
  } catch {
    return '';
  }
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

export function digest(about: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(about)).digest('hex').slice(0, 16);
}

/** What was right, by card. */
export type Kept = Readonly<
  Record<string, { readonly name: string; readonly at: string; readonly right: readonly string[] }>
>;

/** Cards that are remembered: the latest. */
const MOST_CARDS = 16;

export function checksPath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  return join(dirname(profilePath(env)), 'gpu-checks.json');
}

/** What is damaged counts as nothing. */
export async function readChecks(): Promise<Kept> {
  try {
    const kept: unknown = JSON.parse(await readFile(checksPath(), 'utf8'));
    if (typeof kept !== 'object' || kept === null) return {};
    return Object.fromEntries(Object.entries(kept).filter(([, entry]) => Array.isArray(entry?.right)));
  } catch {
    return {};
  }
}

/** By device of this machine: checks that were right there, with the driver and the kernels of now. */
export async function checkedOn(): Promise<Map<string, { right: number; at: string }>> {
  const usable = knownGpus().gpus.filter(({ refused }) => refused === '');
  if (usable.length === 0) return new Map();
  const kept = await readChecks();
  const cards = await cardsOf(usable.map(({ device }) => device));
  return new Map(
    [...cards].flatMap(([device, { key }]) => {
      const found = kept[key];
      return found ? [[device, { right: found.right.length, at: found.at }] as const] : [];
    }),
  );
}

/** A folder that cannot be written is no reason to fail. */
export async function keepChecks(checked: readonly (Card & { readonly right: readonly string[] })[]): Promise<void> {
  const kept: Record<string, Kept[string]> = { ...(await readChecks()) };
  for (const { key, name, right } of checked) {
    const before = kept[key]?.right ?? [];
    delete kept[key]; // to the end: the latest
    kept[key] = { name, at: new Date().toISOString(), right: [...new Set([...before, ...right])] };
  }
  const path = checksPath();
  const part = `${path}.${process.pid}`;
  const latest = Object.fromEntries(Object.entries(kept).slice(-MOST_CARDS));
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(part, `${JSON.stringify(latest, null, 2)}\n`);
    await rename(part, path);
  } catch {
    await rm(part, { force: true }).catch(() => {});
  }
}
