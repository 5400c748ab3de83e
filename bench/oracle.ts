/**
 * An external oracle: the same small random models, as GGUF files, through node-llama-cpp and through Tandem's backends.
 * Weights, cache and activations are f32 on both sides, so that agreement is limited by the order of sums alone.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backend } from '../src/backend/backend.ts';
import { nativeBackend } from '../src/backend/native/backend.ts';
import { referenceBackend } from '../src/backend/reference.ts';
import { openCheckpoint } from '../src/formats/open.ts';
import type { HuggingFaceConfig } from '../src/models/synthetic.ts';
import { PAGE_TOKENS } from '../src/program/program.ts';
import { floats } from '../test/golden/files.ts';
import { type GgufLayout, tinyModel } from '../test/golden/make-tiny.ts';
import { IDS, KEPT, ORACLE_CONFIGS } from '../test/golden/oracle-cases.ts';
import { nmse, placedProgram, wholeBatch } from '../test/golden/run.ts';

/** Largest difference of any probability. */
const TOLERANCE = 1e-3;

/** One file through the peer, and through Tandem. */
interface Case {
  readonly name: string;
  readonly file: string;
  readonly out: string;
  readonly ids: readonly number[];
  readonly kv: 'F32';
  /** Whether the peer's answer is kept for the tests. */
  readonly recorded?: boolean;
  /** Why the peer computes something else than the model's authors; such a case is reported, not judged. */
  readonly departs?: string;
  /** What Tandem does like the peer then: its file, or how it scores groups. */
  readonly own?: { readonly file?: string; readonly groupScore?: 'top2' };
}

interface Agreement {
  readonly nmse: number;
  /** Largest |p − p′| over all positions and tokens. */
  readonly probability: number;
  /** Positions whose most likely token is another. */
  readonly tokens: number;
}

/** Runs every case, writes bench/results/oracle.md and test/golden/oracle.f32; 1 where anything disagrees. */
export async function oracle(peers: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'tandem-oracle-'));
  try {
    const cases = await writeCases(folder);
    const job = join(folder, 'job.json');
    writeFileSync(job, JSON.stringify({ peers, cases }));
    const peer = spawnSync(process.execPath, ['bench/peers/node-llama-cpp-logits.mjs', job], { stdio: 'inherit' });
    if (peer.status !== 0) throw new Error(`node-llama-cpp ended with ${peer.status ?? peer.signal}`);
    const rows: string[] = [];
    let agree = true;
    for (const one of cases) {
      const refusal = `${one.out}.error`;
      if (existsSync(refusal)) {
        agree = false;
        const [reason] = readFileSync(refusal, 'utf8').split('\n');
        rows.push(`| ${one.name} | | | | | | | refused by the peer: ${reason} |`);
        console.log(rows.at(-1));
        continue;
      }
      const expected = floats(one.out);
      const reference = await agreement(referenceBackend(), one, expected);
      const native = await agreement(nativeBackend(), one, expected);
      const agrees = reference.probability < TOLERANCE && native.probability < TOLERANCE;
      agree &&= agrees || one.departs !== undefined;
      const verdict = agrees ? 'agree' : `differ${one.departs ? `: ${one.departs}` : ''}`;
      rows.push(`| ${one.name} | ${cells(reference)} | ${cells(native)} | ${verdict} |`);
      console.log(rows.at(-1));
    }
    if (agree) record(cases.filter(({ recorded }) => recorded));
    report(peers, rows);
    return agree ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function writeCases(folder: string): Promise<Case[]> {
  const cases: Case[] = [];
  const write = async (config: HuggingFaceConfig, layout: GgufLayout) => {
    const file = join(folder, `${cases.length}.gguf`);
    writeFileSync(file, await (await tinyModel(config)).ggufFile(layout));
    return file;
  };
  for (const [model, config] of ORACLE_CONFIGS) {
    const layouts: [string, GgufLayout][] = [['', {}]];
    if ('kv_lora_rank' in config) layouts.push([', kv_b split', { kvB: 'split' }]);
    if (config.n_routed_experts === 256) layouts.push([', no group keys', { groupKeys: false }]);
    // The peer reads it in this architecture alone.
    if (config.model_type === 'deepseek_v3') layouts.push([', gate and up in one tensor', { experts: 'gate-up' }]);
    for (const [suffix, layout] of layouts) {
      const file = await write(config, layout);
      const one = { name: model + suffix, file, out: `${file}.f32`, ids: IDS, kv: 'F32' } as const;
      if (config.topk_method === 'group_limited_greedy') {
        const departs = 'V2 scores a group by its best expert; the peer takes the sum of the best two, as V3 does';
        cases.push({ ...one, departs });
        cases.push({ ...one, name: `${one.name}; both by the best two`, own: { groupScore: 'top2' } });
      } else if (config.model_type === 'kimi_k2') {
        cases.push({ ...one, departs: "the peer does not read the file's yarn_beta_fast of 1, its ramp is 32 to 1" });
        const scaling = { ...(config.rope_scaling as object), beta_fast: 32 };
        const wide = await write({ ...config, rope_scaling: scaling }, layout);
        cases.push({ ...one, name: `${one.name}; both with a ramp of 32 to 1`, own: { file: wide } });
      } else if (model === 'gpt-oss, YaRN with a ramp') {
        cases.push({
          ...one,
          departs: 'gpt-oss was made with a ramp that ends where it falls; the peer takes whole pairs',
        });
      } else if (layout.groupKeys === false) {
        cases.push({
          ...one,
          departs: 'V3 has 8 groups of which 4 stay whether its file says so or not; the peer has none',
        });
        const own = { file: await write({ ...config, n_group: 1, topk_group: 1 }, {}) };
        cases.push({ ...one, name: `${one.name}; both without groups`, own });
      } else {
        cases.push({ ...one, recorded: suffix === '' });
      }
    }
  }
  return cases;
}

async function agreement(backend: Backend, one: Case, expected: Float32Array): Promise<Agreement> {
  const { ids, own } = one;
  await using checkpoint = await opened(own?.file ?? one.file);
  const placed = await placedProgram(checkpoint);
  const steps = placed.steps.map((step) =>
    step.op === 'router' && own?.groupScore
      ? { ...step, attributes: { ...step.attributes, groupScore: own.groupScore } }
      : step,
  );
  const limits = { pages: Math.ceil(ids.length / PAGE_TOKENS), maxRows: ids.length, maxOutputs: ids.length };
  await using executable = await backend.prepare({ ...placed, steps }, checkpoint, limits);
  const actual = (await executable.run(wholeBatch(ids))).logits!;
  const vocab = expected.length / ids.length;
  let [probability, tokens] = [0, 0];
  for (let row = 0; row < ids.length; row++) {
    const [a, b] = [actual, expected].map((logits) => softmax(logits.subarray(row * vocab, (row + 1) * vocab)));
    for (let i = 0; i < vocab; i++) probability = Math.max(probability, Math.abs(a[i] - b[i]));
    if (a.indexOf(Math.max(...a)) !== b.indexOf(Math.max(...b))) tokens++;
  }
  return { nmse: nmse(actual, expected), probability, tokens };
}

async function opened(file: string) {
  const checkpoint = await openCheckpoint(file);
  return { ...checkpoint, [Symbol.asyncDispose]: () => checkpoint.close() };
}

/** Keeps some of the peer's logits for the tests. */
function record(cases: readonly Case[]): void {
  const kept = cases.flatMap(({ out, ids }) => {
    const logits = floats(out);
    const vocab = logits.length / ids.length;
    return KEPT.flatMap((row) => [...logits.subarray(row * vocab, (row + 1) * vocab)]);
  });
  writeFileSync('test/golden/oracle.f32', new Uint8Array(Float32Array.from(kept).buffer));
  writeFileSync('test/golden/oracle.json', `${JSON.stringify({ models: cases.map(({ name }) => name) }, null, 2)}\n`);
}

function softmax(logits: Float32Array): number[] {
  const most = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = weights.reduce((all, weight) => all + weight, 0);
  return weights.map((weight) => weight / sum);
}

function cells({ nmse: error, probability, tokens }: Agreement): string {
  return `${error.toExponential(1)} | ${probability.toExponential(1)} | ${tokens}`;
}

function report(peers: string, rows: readonly string[]): void {
  const installed = join(peers, 'node_modules/node-llama-cpp');
  const { version } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
  const { tag } = JSON.parse(readFileSync(join(installed, 'llama/llama.cpp.info.json'), 'utf8'));
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  mkdirSync('bench/results', { recursive: true });
  writeFileSync(
    'bench/results/oracle.md',
    `# Tandem's logits against node-llama-cpp's

Made by \`node bench/oracle.mjs\` at commit ${commit}, ${new Date().toISOString().slice(0, 10)}: node-llama-cpp ${version} (llama.cpp ${tag}), CPU, f32 weights and cache,
no flash attention; Tandem with f32 cache and exact activations. Random models of a few hundred kilobytes
(\`test/golden/tiny-configs.ts\`), ${IDS.length} positions; those with scaled positions were made for 64.

NMSE is of all logits, Δp the largest difference of any probability, tokens the positions whose most likely token is another. They agree
where no probability differs by ${TOLERANCE}; where the peer computes something else than the model's authors do, a second row lets Tandem do the same.

| model | reference NMSE | Δp | tokens | native NMSE | Δp | tokens | |
|---|---|---|---|---|---|---|---|
${rows.join('\n')}
`,
  );
}
