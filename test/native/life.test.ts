/**
 * The life of a native model: loading from files and bytes, progress, aborting, cancelling, errors, disposal, workers,
 * exits in the middle of a pass, memory after a hundred loads.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { loadNative, nativeProblem } from '../../src/backend/native/load.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { planBuffers } from '../../src/program/buffers.ts';
import { encodeBatch, encodeProgram } from '../../src/program/encode.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { tinyProgram } from '../conformance/tiny-program.ts';

const LIMITS = { pages: 4, maxRows: 64, maxOutputs: 8 };
const ADDON = join(import.meta.dirname, '..', '..', 'build', 'tandem.node');
const folder = mkdtempSync(join(tmpdir(), 'tandem-life-'));
afterAll(() => rmSync(folder, { recursive: true }));

const { program, checkpoint } = tinyProgram({ seed: 5 });
const batch = batchOf([{ tokens: [1, 2, 3], pages: [0], slot: 7 }]);

/** The checkpoint's one file on disk; `change` may damage it. */
async function onDisk(name: string, change: (bytes: Uint8Array) => void = () => {}): Promise<Checkpoint> {
  const path = join(folder, name);
  const source = checkpoint.files[0];
  const bytes = await source.read(0, source.size);
  change(bytes);
  writeFileSync(path, bytes);
  return {
    ...checkpoint,
    files: [{ ...source, name: path, size: source.size, path, read: source.read, close: source.close }],
  };
}

describe.skipIf(nativeProblem())(`native models ${nativeProblem()?.message ?? ''}`, () => {
  it('load from bytes, pages and a mapped file to the same logits', async () => {
    const file = await onDisk('whole.bin');
    const logits: Float32Array[] = [];
    for (const [from, load] of [
      [checkpoint, 'auto'],
      [file, 'pages'],
      [file, 'mmap'],
    ] as const) {
      const seen: [number, number][] = [];
      const onProgress = (loaded: number, total: number) => void seen.push([loaded, total]);
      await using model = await nativeBackend().prepare(program, from, { ...LIMITS, load, onProgress });
      logits.push((await model.run(batch)).logits!);
      expect(seen.at(-1)![0]).toBe(seen.at(-1)![1]);
      expect(model.description.load).toBe(load === 'mmap' ? 'mmap' : 'pages');
    }
    expect(logits[1]).toEqual(logits[0]);
    expect(logits[2]).toEqual(logits[0]);
  });

  it('leave experts mapped where memory is short, and say so; the logits are the same', async () => {
    const file = await onDisk('short.bin');
    await using whole = await nativeBackend().prepare(program, file, { ...LIMITS, load: 'pages' });
    const { description } = whole;
    const size = (name: string) => Number(description[`${name} bytes`]);
    expect(description.loaded).toMatch(/^[\d.]+ \w+ into pages from the (page cache|disk), [\d.]+ GB\/s$/);
    // Room for all but the experts, with what `auto` leaves to others.
    const memory = Math.ceil((size('weight') * 0.7 + size('kv') + size('buffer')) / 0.85);
    await using short = await nativeBackend().prepare(program, file, { ...LIMITS, memory });
    expect(short.description).toMatchObject({ load: 'pages, experts mmap' });
    expect(short.description.loaded).toMatch(/ into pages from .*; experts stay mapped \(needs .*, .* free\)$/);
    expect(short.description['mapped bytes']).toBeGreaterThan(size('weight') / 4);
    expect((await short.run(batch)).logits).toEqual((await whole.run(batch)).logits);
    const refused = nativeBackend().prepare(program, file, { ...LIMITS, memory: 1000 });
    await expect(refused).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
  });

  it('refuse damaged files with what was found', async () => {
    const prepare = (from: Checkpoint, load: 'mmap' | 'pages') =>
      nativeBackend().prepare(program, from, { ...LIMITS, load });
    const cut = await onDisk('cut.bin');
    truncateSync(cut.files[0].path!, Math.floor(cut.files[0].size / 2));
    await expect(prepare(cut, 'pages')).rejects.toMatchObject({ name: 'TandemError', code: 'FILE_IO' });
    await expect(prepare(cut, 'mmap')).rejects.toMatchObject({
      code: 'FILE_IO',
      message: expect.stringContaining('cut.bin'),
    });
    const gone = await onDisk('gone.bin');
    rmSync(gone.files[0].path!);
    await expect(prepare(gone, 'pages')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    const norm = program.weights.find(({ shape }) => shape.length === 1)!;
    const { offset } = checkpoint.tensors.get(norm.parts[0])!;
    const poisoned = await onDisk('nan.bin', (bytes) => bytes.set([0, 0, 0xc0, 0x7f], offset));
    await expect(prepare(poisoned, 'mmap')).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining(norm.name),
    });
  });

  it('refuse budgets that no machine has', async () => {
    const prepare = (change: object) => nativeBackend().prepare(program, checkpoint, { ...LIMITS, ...change });
    await expect(prepare({ pages: 2 ** 30 })).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
    await expect(prepare({ maxRows: 2 ** 40 })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(prepare({ isa: 'sse9' })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  it('stop loading when the signal says so', async () => {
    const controller = new AbortController();
    const loading = nativeBackend().prepare(program, checkpoint, { ...LIMITS, signal: controller.signal });
    controller.abort();
    await expect(loading).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('drop a cancelled sequence, also one whose pass waits for its turn', async () => {
    await using model = await nativeBackend().prepare(program, checkpoint, LIMITS);
    const first = model.run(batch);
    const second = model.run(batch);
    model.cancel(7);
    expect([...(await second).tokens]).toEqual([-1, -1, -1]);
    await first;
    expect((await model.run(batch)).tokens[0]).toBeGreaterThanOrEqual(0);
  });

  it('are gone after dispose, which may be called twice', async () => {
    const model = await nativeBackend().prepare(program, checkpoint, LIMITS);
    const pass = model.run(batch);
    await new Promise((begun) => setImmediate(begun));
    await Promise.all([model.dispose(), model.dispose()]);
    expect((await pass).tokens).toHaveLength(3);
    await expect(model.run(batch)).rejects.toMatchObject({ code: 'DISPOSED' });
    model.cancel(7);
  });

  it('refuse blobs that were tampered with', async () => {
    const source = checkpoint.files[0];
    const locate = (name: string) => ({ ...checkpoint.tensors.get(name)!, file: 0 });
    const blob = encodeProgram(program, planBuffers(program), locate);
    const options = {
      ...LIMITS,
      threads: 1,
      isa: '',
      load: 'auto',
      files: [await source.read(0, source.size)],
    } as const;
    const create = (bytes: Uint8Array) =>
      loadNative().createModel({ ...options, program: bytes }, () => {}, new Int32Array(1));
    await expect(create(blob.slice(0, -4))).rejects.toMatchObject({ code: 'PROGRAM_INVALID' });
    const model = await create(blob);
    const bytes = encodeBatch(batch);
    await expect(model.run(bytes.slice(0, -4))).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(model.step(0)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    expect((await model.run(bytes)).tokens).toHaveLength(3);
    await model.dispose();
    await expect(model.run(bytes)).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(() => model.describe()).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
  });

  it('leave no memory behind after a hundred loads', async () => {
    const backend = nativeBackend();
    const once = async () => {
      await using model = await backend.prepare(program, checkpoint, LIMITS);
      await model.run(batch);
    };
    for (let i = 0; i < 20; i++) await once();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 100; i++) await once();
    // One model takes 2 MB; a hundred leaked ones would be far above the garbage that JavaScript has not collected yet.
    expect(process.memoryUsage().rss - before).toBeLessThan(40e6);
  });

  /** Runs a script in a process of its own; it finds the addon, the blobs and `run()` ready. */
  async function child(script: string) {
    const source = checkpoint.files[0];
    const locate = (name: string) => ({ ...checkpoint.tensors.get(name)!, file: 0 });
    writeFileSync(join(folder, 'program'), encodeProgram(program, planBuffers(program), locate));
    writeFileSync(join(folder, 'batch'), encodeBatch(batch));
    writeFileSync(join(folder, 'weights'), await source.read(0, source.size));
    const prelude = `
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      const read = (name) => require('node:fs').readFileSync(${JSON.stringify(folder)} + '/' + name);
      const binding = require(${JSON.stringify(ADDON)});
      const options = { program: new Uint8Array(read('program')), files: [${JSON.stringify(join(folder, 'weights'))}], pages: 4,
        maxRows: 64, maxOutputs: 8, threads: 0, isa: '', load: 'auto' };
      const batch = new Uint8Array(read('batch'));
      const open = () => binding.createModel(options, () => {}, new Int32Array(1));
      const forever = async (model) => { for (;;) await model.run(batch); };`;
    const file = join(folder, 'child.cjs');
    writeFileSync(file, `${prelude}\n${script}`);
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', file], {
      encoding: 'utf8',
      timeout: 50_000,
    });
    return { status, signal, stdout: stdout.trim(), stderr };
  }

  it('let the process exit in the middle of a pass', async () => {
    const script = 'open().then((model) => { forever(model); setTimeout(() => process.exit(3), 30); });';
    for (let i = 0; i < 3; i++) expect(await child(script)).toMatchObject({ status: 3, signal: null });
  });

  it('let the process end by itself when nothing is pending', async () => {
    const script = 'open().then(async (model) => { await model.run(batch); console.log("ran"); });';
    expect(await child(script)).toMatchObject({ status: 0, stdout: 'ran' });
  });

  it('are freed by the garbage collector, threads included', async () => {
    const script = `(async () => {
      for (let i = 0; i < 30; i++) { await (await open()).run(batch); gc(); await new Promise((done) => setTimeout(done, 5)); }
      gc(); await new Promise((done) => setTimeout(done, 50)); await (await open()).dispose();
      console.log(require('node:fs').readdirSync('/proc/self/task').length < 30);
    })();`;
    expect(await child(script)).toMatchObject({ status: 0, stdout: 'true' });
  });

  it.each([
    ['cut short', 'fs.truncateSync(path, 0);', /had \d+ bytes when it was loaded and has 0 now/],
    ['cut and written anew', 'fs.writeFileSync(path, fs.readFileSync(path));', /was written to since it was loaded/],
  ])('a mapped file that is %s fails the passes that follow, and the process lives', async (_how, change, says) => {
    const script = `(async () => {
      const fs = require('node:fs'), path = ${JSON.stringify(join(folder, 'shrinking'))}, whole = options.files;
      fs.copyFileSync(whole[0], path);
      const told = (promise) => promise.then(() => 'no error', (error) => error.code + ' ' + error.message);
      options.load = 'mmap'; options.files = [path];
      const mapped = await open(); options.files = whole;
      const other = await open();
      await mapped.run(batch); await mapped.begin(batch);
      ${change}
      let step = 'no error';
      for (let i = 0; i < ${program.steps.length} && step === 'no error'; i++) step = await told(mapped.step(i));
      console.log([step, await told(mapped.end()), await told(mapped.run(batch)), await told(other.run(batch))].join('\\n'));
    })();`;
    const { status, signal, stdout } = await child(script);
    const [step, end, run, other] = stdout.split('\n');
    expect([status, signal, other]).toEqual([0, null, 'no error']);
    // What was cut is missed at once; what was replaced, at the end of the pass.
    if (change.includes('truncate')) expect(step).toMatch(says);
    for (const error of [end, run]) expect(error).toMatch(/^FILE_IO \[native\] a mapped model file stays as it is/);
    for (const error of [end, run]) expect(error).toMatch(says);
  });

  it('refuse arguments that memory has no room to copy, and live on', async () => {
    const script = `(async () => {
      const told = async (call) => { try { await call(); return 'no error'; } catch (error) { return error.code; } };
      const model = await open();
      await model.run(batch);
      const size = 2 ** 30, bytes = new Uint8Array(size), floats = new Float32Array(size / 4);
      const used = 1024 * /VmSize:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'latin1'))[1];
      require('node:child_process').execFileSync('prlimit', ['--pid', process.pid, '--as=' + (used + size / 2)]);
      const calls = [() => model.run(bytes), () => model.begin(bytes), () => model.write(0, floats),
        () => binding.createModel({ ...options, program: bytes }, () => {}, new Int32Array(1)),
        () => binding.createModel({ ...options, files: [bytes] }, () => {}, new Int32Array(1)),
        () => binding.quantize('q8_32', floats, 'scalar'), () => binding.decodeRows('f32', batch, 1, 1, floats, 'scalar'),
        () => model.run(batch)];
      for (const call of calls) console.log(await told(call));
    })();`;
    const { status, stdout } = await child(script);
    expect([status, ...stdout.split('\n')]).toEqual([0, ...Array(7).fill('OUT_OF_MEMORY'), 'no error']);
  });

  it('a bus error elsewhere still ends the process, by its own handler', async () => {
    const script = `open().then(async (model) => {
      process.on('SIGBUS', () => { console.log('heard'); process.exit(4); });
      await model.run(batch); process.kill(process.pid, 'SIGBUS'); setTimeout(() => {}, 1000); });`;
    expect(await child(script)).toMatchObject({ status: 4, stdout: 'heard' });
    const plain = `options.load = 'mmap'; open().then(async (model) => {
      await model.run(batch); process.kill(process.pid, 'SIGBUS'); setTimeout(() => console.log('deaf'), 1000); });`;
    expect(await child(plain)).toMatchObject({ signal: 'SIGBUS', stdout: '' });
  });

  it('live in worker threads that are terminated during a pass', async () => {
    const script = `
      if (isMainThread) (async () => {
        const mine = await open();
        for (let i = 0; i < 15; i++) {
          const worker = new Worker(__filename);
          await new Promise((done) => worker.on('message', done));
          await worker.terminate();
        }
        await mine.run(batch); await mine.dispose(); console.log('alive');
      })();
      else open().then(async (model) => { await model.run(batch); forever(model); parentPort.postMessage('running'); });`;
    expect(await child(script)).toMatchObject({ status: 0, signal: null, stdout: 'alive' });
  });
});
