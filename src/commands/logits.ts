/** `tandem logits`: every position's logits as little-endian f32 [T, V], for comparing with other engines. */
import { rename, rm, writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { TandemError } from '../errors.ts';
import { loadModel } from './load-model.ts';
import { loadOptions, type ModelFlags, tokenIds, withModel } from './options.ts';

interface Flags extends ModelFlags {
  ids?: number[];
  text?: string;
  out: string;
  json?: boolean;
}

export function addLogits(cli: Command): void {
  const command = cli.command('logits').description("write every position's logits, for comparing with other engines");
  withModel(command)
    .option('--ids <list>', 'token ids: 0,5,6', tokenIds)
    .option('--text <text>', 'text to tokenize instead of --ids (no chat template)')
    .requiredOption('-o, --out <file>', 'where to write little-endian f32 [T, V]')
    .option('--json', 'describe what was written as a JSON object')
    .action(writeLogits);
}

async function writeLogits(flags: Flags): Promise<void> {
  if ((flags.ids === undefined) === (flags.text === undefined)) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'logits takes either --ids or --text',
      given: flags.ids === undefined ? 'neither was given' : 'both were given',
      fix: 'tandem logits --ids 0,5,6 --out logits.f32',
    });
  }
  // Other engines are judged too: the cache adds no rounding unless asked to.
  const engine = await loadModel(flags.model, loadOptions({ ...flags, kvType: flags.kvType ?? 'f32' }));
  try {
    const ids = flags.ids ?? engine.tokenize(flags.text!);
    const logits = await engine.logits(ids);
    await writeWhole(flags.out, new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
    const shape = [ids.length, logits.length / ids.length];
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ file: flags.out, shape, type: 'f32le', ids })}\n`
        : `${flags.out}: [${shape.join(', ')}] f32 little-endian\n`,
    );
  } finally {
    await engine.dispose();
  }
}

/** The file appears whole or not at all. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const unfinished = `${path}.part`;
  try {
    await writeFile(unfinished, bytes);
    await rename(unfinished, path);
  } catch (cause) {
    await rm(unfinished, { force: true });
    throw new TandemError('FILE_IO', {
      room: 'cli',
      rule: 'the output file must be writable',
      given: `${path}: ${(cause as Error).message}`,
      fix: 'choose another --out, or make room',
      cause,
    });
  }
}
