/**
 * One process at a time downloads a blob. A lock is a file that says who holds it; its holder touches it while it works.
 * A lock whose process is gone (same machine), or that nobody touched for a minute, is taken over.
 */
import { link, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

const TOUCH_MS = 5_000;
const STALE_MS = 60_000;

export class Lock {
  readonly #path: string;
  readonly #content: string;
  readonly #timer: ReturnType<typeof setInterval>;

  private constructor(path: string, content: string) {
    this.#path = path;
    this.#content = content;
    this.#timer = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), TOUCH_MS);
    this.#timer.unref();
  }

  /** The lock, or who holds it. The folder exists. System errors come as they are: a lock that cannot be read or moved. */
  static async take(path: string): Promise<Lock | string> {
    const content = JSON.stringify({ pid: process.pid, host: hostname(), nonce: Math.random().toString(36).slice(2) });
    for (;;) {
      if (await create(path, content)) return new Lock(path, content);
      const held = await readFile(path, 'utf8').catch(unlessGone);
      if (held === undefined) continue; // released meanwhile
      const { pid, host } = parse(held);
      if (!(await isStale(path, pid, host))) return named(pid, host);
      await takeAway(path, held);
    }
  }

  /** Whether it is still ours: somebody may have taken it while this process was suspended. */
  async held(): Promise<boolean> {
    return (await readFile(this.#path, 'utf8').catch(() => '')) === this.#content;
  }

  /** Who works on a lock of a folder; undefined: nobody that lives, or there is no such folder. */
  static async holderIn(folder: string): Promise<string | undefined> {
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name);
      const { pid, host } = parse(await readFile(path, 'utf8').catch(() => ''));
      if (pid !== undefined && !(await isStale(path, pid, host))) return named(pid, host);
    }
    return undefined;
  }

  async release(): Promise<void> {
    clearInterval(this.#timer);
    if (await this.held()) await rm(this.#path, { force: true });
  }
}

/** Content and name at once: a process that dies leaves no lock that does not say whose it is. */
async function create(path: string, content: string): Promise<boolean> {
  const aside = asideOf(path);
  await writeFile(aside, content);
  try {
    await link(aside, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

function asideOf(path: string): string {
  return `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`;
}

function parse(text: string): { pid?: number; host?: string } {
  try {
    return JSON.parse(text) as { pid?: number; host?: string };
  } catch {
    return {}; // no lock of ours
  }
}

function named(pid: number | undefined, host: string | undefined): string {
  return `process ${pid ?? '?'}${host === hostname() ? '' : ` on ${host ?? '?'}`}`;
}

/** What is not there any more was released; any other error would be met again and again. */
function unlessGone(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

async function isStale(path: string, pid: number | undefined, host: string | undefined): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return false;
  if (Date.now() - found.mtimeMs > STALE_MS) return true;
  return pid !== undefined && host === hostname() && !isAlive(pid);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // it lives and is somebody else's
  }
}

/** Only one of several that found it stale gets it: a name can be moved away once. A lock made meanwhile is put back. */
async function takeAway(path: string, stale: string): Promise<void> {
  const aside = asideOf(path);
  try {
    await rename(path, aside);
  } catch (error) {
    return unlessGone(error);
  }
  if ((await readFile(aside, 'utf8')) === stale) await rm(aside, { force: true });
  else await rename(aside, path);
}
