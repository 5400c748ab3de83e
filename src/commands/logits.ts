/** `tandem logits`: every position's logits as little-endian f32 [T, V], for comparing with other engines. */
import type { Command } from 'commander';
import { TandemError } from '../errors.ts';
import { loadModel } from './load-model.ts';
import { localPath } from './model-name.ts';
import { loadOptions, type ModelFlags, tokenIds, withModel } from './options.ts';
import { openOutput } from './output.ts';
import { ProgressBar } from './terminal.ts';

interface Flags extends ModelFlags {
  imitateF16Cache?: boolean;
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
    .option('--imitate-f16-cache', 'reference only: round keys and values as llama.cpp does by default')
    .option('--json', 'describe what was written as a JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem logits --ids 0,5,6 --out logits.f32
  tandem logits --text "3 + 4 =" --backend reference --out reference.f32
  python3 -c "import numpy; print(numpy.fromfile('logits.f32', '<f4').reshape(3, -1).argmax(1))"`,
    )
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
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const out = await openOutput(flags.out);
  const bar = new ProgressBar('computing');
  try {
    // For judging: the cache adds no rounding unless asked to.
    const { kvType = 'f32', imitateF16Cache } = flags;
    const options = { ...loadOptions(flags), kvType, imitateF16Cache };
    await using engine = await loadModel(await localPath(flags), options, interrupt.signal);
    const ids = flags.ids ?? engine.tokenize(flags.text!);
    const logits = await engine.logits(ids, {
      signal: interrupt.signal,
      onProgress: ({ done, total }) => bar.update(done, total, 'tokens'),
    });
    bar.end();
    await out.write(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
    await out.close();
    const shape = [ids.length, logits.length / ids.length];
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ file: flags.out, shape, type: 'f32le', ids })}\n`
        : `${flags.out}: [${shape.join(', ')}] f32 little-endian\n`,
    );
  } catch (error) {
    bar.end();
    await out.abort();
    throw error;
  }
}
