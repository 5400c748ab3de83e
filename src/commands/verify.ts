/**
 * `tandem verify`: every fast path of this machine against the reference, in one table; exit code 1 where one breaks its
 * bound. `compare` looks closer at a single path.
 */
import { type Command, Option } from 'commander';
import { type VerifyResult, verify, verifyPaths } from '../engine/verify/verify.ts';
import { TandemError } from '../errors.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { activeWeights } from '../placement/active-weights.ts';
import type { KvType, Program } from '../program/program.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { localPath } from './model-name.ts';
import { MODEL, positive, tokenIds, withModelPath, withRules } from './options.ts';
import { rulesOf } from './rules.ts';
import { ProgressBar, paint, table } from './terminal.ts';

interface Flags {
  model?: string;
  ids?: number[];
  text: string;
  tokens?: number;
  rules?: string;
  kvType: KvType;
  json?: boolean;
}

/** Longer than a page of the cache with most vocabularies. */
const TEXT =
  'Two jugs of 3 L and 5 L, and all the water of the world: how do I get 4 L? Fill the large one, pour into the small ' +
  'one until it is full, and 2 L are left; empty the small one, pour these in, fill the large one again and top up the ' +
  'small one: 4 L stay. 请问如何得到 4 L 水？ def f(x): return x ** 2 + 1';

/** Weights that the reference multiplies a second, on one core; it decides how much of the text is taken. */
const REFERENCE_SPEED = 6e7;
const PATIENCE_SECONDS = 240;
const FEWEST_TOKENS = 4;

export function addVerify(cli: Command): void {
  const command = cli
    .command('verify')
    .description('every fast path of this machine against the reference, in one table; exit code 1 where one is wrong')
    .argument('[model]', MODEL);
  withRules(withModelPath(command))
    .option('--text <text>', 'text to run over (default: some lines of English, Chinese and code)', TEXT)
    .option('--ids <list>', 'token ids instead of a text: 0,5,6', tokenIds)
    .option('--tokens <n>', 'take so many of them (default: what the reference does in some minutes)', positive)
    .addOption(
      new Option('--kv-type <type>', 'element type of the KV cache').choices(['bf16', 'e4m3', 'f32']).default('bf16'),
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem verify                          is this machine right?
  tandem verify --rules my.yaml          is it right the way these rules compute?
  tandem verify model.gguf --tokens 16   with your model; each token takes the reference a while`,
    )
    .action(run);
}

async function run(model: string | undefined, flags: Flags): Promise<void> {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const checkpoint = await openCheckpoint(await localPath(flags, model));
  const bar = new ProgressBar('verifying');
  try {
    const { program } = await buildProgram(checkpoint, { kvType: flags.kvType });
    const given = flags.ids ?? (await createTokenizer(checkpoint)).encode(flags.text);
    checkIds(given, program);
    const rules = await rulesOf(flags, program);
    const ids = given.slice(0, flags.tokens ?? affordable(program, given.length));
    const paths = verifyPaths(program, ids.length);
    if (!flags.json)
      process.stdout.write(`${checkpoint.name}, ${ids.length} tokens, ${paths.length} ways to run them\n\n`);
    const results: VerifyResult[] = [];
    bar.update(0, paths.length, 'ways');
    for await (const result of verify({ program, checkpoint, ids, paths, rules, signal: interrupt.signal })) {
      results.push(result);
      bar.update(results.length, paths.length, 'ways');
    }
    bar.end();
    process.stdout.write(
      flags.json ? `${JSON.stringify({ tokens: ids.length, results }, null, 2)}\n` : render(results),
    );
    if (results.some(({ breach }) => breach)) process.exitCode = 1;
  } finally {
    bar.end();
    await checkpoint.close();
  }
}

/** About three runs of the reference for each way that is judged step by step. */
function affordable(program: Program, tokens: number): number {
  const ways = verifyPaths(program, tokens).filter(({ sameBitsAs }) => sameBitsAs === undefined).length;
  const seconds = (ways * 3 * activeWeights(program)) / REFERENCE_SPEED;
  return Math.min(tokens, Math.max(FEWEST_TOKENS, Math.floor(PATIENCE_SECONDS / seconds)));
}

function checkIds(ids: readonly number[], { vocabSize, contextLength }: Program): void {
  const wrong = ids.find((id) => id >= vocabSize);
  if (ids.length > 0 && ids.length <= contextLength && wrong === undefined) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: `verify runs over 1 to ${contextLength} token ids below ${vocabSize}`,
    given: wrong === undefined ? `${ids.length} ids were given` : `id ${wrong} was given`,
    fix: 'give other --ids or another --text',
  });
}

function render(results: readonly VerifyResult[]): string {
  const header = [
    '',
    'NMSE',
    'allowed',
    'mean KL',
    'worst KL',
    'same top',
    'worst step, of its bound',
    'bits',
    'routed otherwise',
  ];
  const rows = results.map((result) => {
    const { path, nmse, alarm, meanKl, worstKl, sameTop, worstStep, routedOtherwise, sameBits, breach } = result;
    const ratio = worstStep?.worst && `${(worstStep.worst.ratio * 100).toFixed(0)} % ${worstStep.name}`;
    return [
      `${breach ? paint('red', '✗') : paint('green', '✓')} ${path.name}`,
      nmse.toExponential(1),
      alarm.toExponential(0),
      meanKl.toExponential(1),
      worstKl.toExponential(1),
      `${(sameTop * 100).toFixed(0)} %`,
      ratio ?? '–',
      sameBits === undefined ? '' : sameBits ? 'equal' : 'other',
      routedOtherwise > 0 ? `${routedOtherwise} rows` : '',
    ];
  });
  const breaches = results.filter(({ breach }) => breach);
  const verdict =
    breaches.length === 0
      ? paint('green', `all ${results.length} ways agree with the reference`)
      : breaches.map(({ path, breach }) => paint('red', `${path.name}: ${breach}`)).join('\n');
  return `${table([header, ...rows], 'lrrrrrlll')}\n\n${verdict}\n`;
}
