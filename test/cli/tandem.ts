/** The command line as users run it: `node dist/cli.js`, compiled first where the sources are newer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tryLock } from '../lock.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const CLI = join(ROOT, 'dist', 'cli.js');

/** Compiles TypeScript, under a second. Of test files that run at once one compiles, and nobody runs half of the output. */
export function build(): void {
  let release = tryLock('build', 60_000);
  while (release === undefined) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    release = tryLock('build', 60_000);
  }
  try {
    compile();
  } finally {
    release();
  }
}

function compile(): void {
  const built = statSync(CLI, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
  if (sources.every((file) => statSync(join(ROOT, 'src', file)).mtimeMs <= built)) return;
  execFileSync(
    process.execPath,
    [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'],
    {
      cwd: ROOT,
      stdio: 'inherit',
    },
  );
}

export interface Ended {
  /** Null where a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** What stdin holds; nothing by default. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Called with each piece of stdout or stderr, e.g. to interrupt. */
  readonly watch?: (child: ChildProcess, piece: string) => void;
}

/** `node ARGS`, ended. */
function node(args: readonly string[], { input = '', env, cwd, watch }: RunOptions = {}): Promise<Ended> {
  const child = spawn(process.execPath, args, { env: { ...process.env, NO_COLOR: '1', ...env }, cwd: cwd ?? ROOT });
  const texts = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (piece: string) => {
      texts[stream] += piece;
      watch?.(child, piece);
    });
  child.stdin.on('error', () => {}); // it may end before it reads
  child.stdin.end(input);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, ...texts }));
  });
}

/** `tandem ARGS`, ended. */
export function tandem(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return node([CLI, ...args], options);
}
