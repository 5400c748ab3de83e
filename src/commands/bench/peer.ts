/** Another engine on the same file, threads and token ids, in a process of its own. Installed by hand in bench/peers. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TandemError } from '../../errors.ts';

/** Tokens per second of one run. */
export interface Rates {
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}

/** A run of a peer may say what processor features its library used. */
export interface PeerRates extends Rates {
  readonly system?: string;
}

export const PEERS = ['node-llama-cpp'] as const;
export type Peer = (typeof PEERS)[number];

const FOLDER = fileURLToPath(new URL('../../../bench/peers/', import.meta.url));

/** Refuses a peer that is not there before anything is measured. */
export function checkPeer(peer: Peer): void {
  if (existsSync(join(FOLDER, 'node_modules', peer))) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: '--against races an engine that is installed',
    given: `${peer} is not in bench/peers of a checkout of Tandem`,
    fix: '(cd bench/peers && npm install)',
  });
}

export interface PeerRun {
  readonly file: string;
  readonly threads: number;
  readonly prompt: number;
  readonly generate: number;
  readonly modulus: number;
  /** Ours; the peer takes kernels for no more than that. */
  readonly isa: string;
  readonly signal: AbortSignal;
}

export async function runPeer(peer: Peer, run: PeerRun): Promise<PeerRates> {
  const words = [run.file, run.threads, run.prompt, run.generate, run.modulus, run.isa].map(String);
  const child = spawn(process.execPath, [join(FOLDER, `${peer}.mjs`), ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    signal: run.signal,
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', (cause) => {
      const rule = run.signal.aborted ? 'the benchmark was cancelled' : `${peer} can be started`;
      reject(new TandemError(run.signal.aborted ? 'ABORTED' : 'REQUEST_INVALID', { room: 'cli', rule, cause }));
    });
    child.on('close', resolve);
  });
  return ratesOf(peer, code, output);
}

/** The last line a peer prints is its result. */
export function ratesOf(peer: string, code: number | null, output: string): PeerRates {
  try {
    const rates = JSON.parse(output.trim().split('\n').at(-1)!) as PeerRates;
    if (code === 0 && rates.prefillTokensPerSecond > 0 && rates.decodeTokensPerSecond > 0) return rates;
  } catch {
    // told below
  }
  throw new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: `${peer} runs this file and prints its figures`,
    given: `it ended with code ${code} and ${output.trim() === '' ? 'no output' : `"${output.trim().slice(-200)}"`}`,
    fix: 'its own messages are above',
  });
}
