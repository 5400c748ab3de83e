/**
 * What has come of a file that is being downloaded: its bytes in one sparse file, and a journal that names the ranges that
 * are there. Bytes are on the disk before the journal names them, so a process that dies at any moment, and a machine that
 * loses its power, lose the last second and no more; a torn last line names nothing.
 *
 *     tandem-ranges 1 SIZE\n   START END\n   START END\n …
 *
 * The names are our own: `<etag>.incomplete` without `tandem` belongs to Hugging Face's tools, which take its length for
 * what has come.
 */
import { type FileHandle, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { Ranges } from './ranges.ts';

export class PartialFile {
  readonly path: string;
  readonly size: number;
  /** What the journal names, or is about to. */
  readonly ranges: Ranges;
  readonly #data: FileHandle;
  readonly #journal: FileHandle;
  #unrecorded: [start: number, end: number][] = [];
  #recording: Promise<void> = Promise.resolve();

  private constructor(path: string, size: number, ranges: Ranges, data: FileHandle, journal: FileHandle) {
    this.path = path;
    this.size = size;
    this.ranges = ranges;
    this.#data = data;
    this.#journal = journal;
  }

  /** Opens what an earlier process left, or begins. System errors come as they are. */
  static async open(path: string, size: number): Promise<PartialFile> {
    const journalPath = `${path}.ranges`;
    const found = (await isFile(path)) ? await readJournal(journalPath, size) : undefined;
    const ranges = found ?? new Ranges();
    const data = await open(path, found === undefined ? 'w+' : 'r+');
    try {
      await data.truncate(size);
      // Written anew, in few lines: a torn one must not meet the next.
      await writeFile(`${journalPath}.new`, `${header(size)}${ranges.list.map(line).join('')}`);
      await rename(`${journalPath}.new`, journalPath);
      return new PartialFile(path, size, ranges, data, await open(journalPath, 'a'));
    } catch (error) {
      await data.close();
      throw error;
    }
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    for (let done = 0; done < bytes.length; )
      done += (await this.#data.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
    this.#unrecorded.push([at, at + bytes.length]);
  }

  /** Bytes that were written and are not in the journal. */
  get unrecorded(): number {
    return this.#unrecorded.reduce((sum, [start, end]) => sum + end - start, 0);
  }

  /** Puts what was written so far into the journal. */
  record(): Promise<void> {
    this.#recording = this.#recording.then(async () => {
      const written = new Ranges();
      for (const [start, end] of this.#unrecorded.splice(0)) written.add(start, end);
      if (written.bytes === 0) return;
      await this.#data.datasync();
      await this.#journal.appendFile(written.list.map(line).join(''));
      for (const [start, end] of written.list) this.ranges.add(start, end);
    });
    return this.#recording;
  }

  /** Reads into `buffer` from `at`; how many bytes. */
  async read(buffer: Uint8Array, at: number, length: number): Promise<number> {
    return (await this.#data.read(buffer, 0, length, at)).bytesRead;
  }

  async close(): Promise<void> {
    await this.#data.close();
    await this.#journal.close();
  }

  /** Closes it and gives it its name. */
  async finish(target: string): Promise<void> {
    await this.#data.sync();
    await this.close();
    await rename(this.path, target);
    await rm(`${this.path}.ranges`, { force: true });
  }

  /** Closes it and forgets what came. */
  async drop(): Promise<void> {
    await this.close();
    await rm(`${this.path}.ranges`, { force: true });
    await rm(this.path, { force: true });
  }
}

/** Bytes of an unfinished download that need not come again. */
export async function partialBytes(path: string, size: number): Promise<number> {
  return (await isFile(path)) ? ((await readJournal(`${path}.ranges`, size))?.bytes ?? 0) : 0;
}

async function isFile(path: string): Promise<boolean> {
  const handle = await open(path, 'r').catch(() => undefined);
  await handle?.close();
  return handle !== undefined;
}

/** Undefined where there is none, or one of another file. */
async function readJournal(path: string, size: number): Promise<Ranges | undefined> {
  const text = await readFile(path, 'latin1').catch(() => '');
  if (!text.startsWith(header(size))) return undefined;
  const ranges = new Ranges();
  const lines = text.slice(0, text.lastIndexOf('\n')).split('\n').slice(1);
  for (const text of lines) {
    const match = /^(\d+) (\d+)$/.exec(text);
    if (match !== null && Number(match[2]) <= size) ranges.add(Number(match[1]), Number(match[2]));
  }
  return ranges;
}

function header(size: number): string {
  return `tandem-ranges 1 ${size}\n`;
}

function line([start, end]: readonly [number, number]): string {
  return `${start} ${end}\n`;
}
