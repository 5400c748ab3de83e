/** From a path to an Engine: open, trace, budget, place, prepare. What was opened is closed when a step fails. */
import { fileURLToPath } from 'node:url';
import type { Backend, Executable, PrepareOptions } from '../backend/backend.ts';
import { TandemError } from '../errors.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openCheckpoint } from '../formats/open.ts';
import { localModel } from '../hub/resolve.ts';
import { deferralWarning, withDeferredExperts } from '../models/deferred-experts.ts';
import { expertsPerToken, lossyWarning, withExpertsPerToken } from '../models/experts-per-token.ts';
import { buildProgram } from '../models/index.ts';
import { cardRoom } from '../placement/card-room.ts';
import { planSharing, reservedFor, sharedLayers } from '../placement/expert-sharing.ts';
import type { Machine } from '../placement/lower.ts';
import { nativeMachine } from '../placement/machine.ts';
import { ruleWarnings } from '../placement/match.ts';
import { executionsOf, lowerBoth } from '../placement/phases.ts';
import { PASS } from '../placement/predict.ts';
import type { Rule } from '../placement/rule.ts';
import { withRates } from '../placement/sharing-rates.ts';
import { worthwhileRowsOf } from '../placement/worthwhile-rows.ts';
import { KV_TYPES, type KvType, type Program, pageBytes } from '../program/program.ts';
import { createChatTemplate } from '../text/chat-template.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { checkPlaced, placeAutomatically } from './auto-place.ts';
import { Engine } from './engine.ts';
import { fingerprint } from './fingerprint.ts';
import { firstRows } from './first-rows.ts';
import { samplingDefaults } from './generation-defaults.ts';
import { checkGpus, describeCheck } from './gpu-check.ts';
import { sharingRequest, sharingWarnings } from './gpu-sharing.ts';
import {
  canGiveWay,
  cardsOf,
  checkedWarning,
  fellBack,
  gpuWarnings,
  memoryFor,
  usesGpus,
  withoutGpus,
} from './gpus.ts';
import { heldExpertsFailure, heldWarning } from './held-check.ts';
import { hitsKey, keepHits } from './kept-hits.ts';
import { availableMemory, chooseMemory, type MemoryRequest } from './memory.ts';
import { checkOptionNames } from './option-names.ts';
import { PageFolder } from './page-folder.ts';
import { PageStore } from './page-store.ts';
import { type RulesOption, readRules } from './rules.ts';
import { invalid, numberIn } from './sampling.ts';
import { likelyProfile } from './this-machine.ts';

export interface LoadOptions {
  /** `native` (default) computes with compiled kernels; `reference` is plain TypeScript, slow, the definition. */
  backend?: 'native' | 'reference';
  /** Native: worker threads, at most as many as there are cores; 0 = default: physical cores, one less where there are 8 or more. */
  threads?: number;
  /** Native: `scalar`, `avx2`, `avx512` or `amx`. Default: the environment's TANDEM_ISA, else the best there is. */
  isa?: string;
  /** Native: weights mapped from the file, or read into (huge) pages. Default `auto`. */
  load?: 'auto' | 'mmap' | 'pages';
  /** Most bytes of memory to take, weights and all. Default: what the machine or its control group has to give. */
  memory?: number;
  /** Most bytes of the GPUs' memory to take, all together. Default: what they have. */
  vram?: number;
  /** Most tokens of a sequence, prompt and answer. Default: the model's, as far as memory goes (`engine.info`). */
  contextLength?: number;
  /** How the cache is stored; `e4m3` halves it, and lies on GPUs alone. Default: `bf16`; `f32` on `reference`. */
  kvType?: KvType;
  /**
   * `rounded`: activations are rounded to int8 blocks before they meet quantized weights, as fast kernels want it.
   * `f32`: not at all, for judging a model rather than running it. Default: `rounded`; `f32` on `reference`.
   */
  activations?: 'rounded' | 'f32';
  /**
   * Native: the same bits for a row whatever the batch, the chunks and the threads. Default false: long prompts take the
   * fast ways: attention by panels, matrices over tiles in bf16 (AMX, AVX512-BF16). `engine.info.numerics` says which.
   */
  exact?: boolean;
  /**
   * What runs where and how (docs/guide/rules.md): a rule file, the name of one that ships, or a list of rules, of which the
   * first that matches a step decides. Rules that decide nothing are told in `engine.info.warnings`.
   */
  rules?: RulesOption;
  /** `reference` only: keys and values are rounded to f16, as engines with an expanded f16 cache have them. Default false. */
  imitateF16Cache?: boolean;
  /** Most bytes of the KV cache, shared by all sequences. Default: by the machine's memory. */
  kvBytes?: number;
  /** Most rows (tokens) of a pass, [2, 65536]. Default 2048, or the context where that is shorter (but not below 512). */
  maxBatchRows?: number;
  /** Routed experts a token takes, instead of as many as the model was trained with: lossy, told in `engine.info.warnings`. */
  expertsPerToken?: number;
  /**
   * So many of a token's experts, those that weigh least, are added one layer later, so that a CPU has work while GPUs compute
   * attention: lossy, told in `engine.info.warnings`. Less than the experts of a token. Default 0.
   */
  deferExperts?: number;
  /**
   * Where GPUs have all of a layer but its routed experts: experts of each such layer that its GPU holds a copy of, those that are
   * asked for most, the processor computes the others. `auto`: as many as there is room for. Not in exact mode. Default `auto`.
   */
  hotExperts?: 'auto' | 'off' | number;
  /**
   * There, too: passes over prompts of so many rows and more send all experts through the GPU. `auto`: from where it pays, if there
   * is room. Not in exact mode. Default `auto`.
   */
  streamPrefill?: 'auto' | 'off' | number;
  /** Most sequences that run at once, [1, 4096]; more wait. Default 32. */
  maxSequences?: number;
  /**
   * Prompts that begin alike share what was computed. Default true: in memory, beside the requests that run. With a folder
   * also on disk, for later processes; `maxBytes` (default 8 GB) bounds it, whatever models' pages lie there.
   */
  prefixCache?: boolean | { readonly directory: string; readonly maxBytes?: number };
  /** Stops loading. */
  signal?: AbortSignal;
  /** Bytes of weights that are ready, of all. */
  onProgress?: (loaded: number, total: number) => void;
}

const LOAD_OPTIONS = [
  'backend',
  'threads',
  'isa',
  'load',
  'memory',
  'vram',
  'contextLength',
  'kvType',
  'activations',
  'exact',
  'rules',
  'imitateF16Cache',
  'kvBytes',
  'maxBatchRows',
  'expertsPerToken',
  'deferExperts',
  'hotExperts',
  'streamPrefill',
  'maxSequences',
  'prefixCache',
  'signal',
  'onProgress',
] as const satisfies readonly (keyof LoadOptions)[];

const ISAS = ['scalar', 'avx2', 'avx512', 'amx'];

/** Time a pass with prefill rows should take: a neighbour's token waits about as long. */
const TARGET_MS = 400;
/** And where nobody decodes: only a newcomer and the progress bar wait. Experts meet more rows each, so it is faster. */
const SOLO_TARGET_MS = PASS.seconds * 1000;
/** The same where fewer rows would waste the pass's time (placement/worthwhile-rows.ts). */
const SOLO_MOST_MS = PASS.mostSeconds * 1000;
/** Output rows of a pass; logits of so many rows are held in memory. */
const MAX_OUTPUTS = 64;

/** The model that ships with the package. */
export function defaultModelPath(): string {
  return fileURLToPath(new URL('../../models/jug/jug-Q8_0.gguf', import.meta.url));
}

/**
 * Loads a model: a GGUF file, the first file of a split set, a Hugging Face folder, or `organization/model[:QUANT]` that
 * was pulled. Default: the one that ships.
 * Rejects with FILE_NOT_FOUND, FORMAT_INVALID, MODEL_UNSUPPORTED, MODEL_INVALID, PLACEMENT_IMPOSSIBLE, NATIVE_UNAVAILABLE,
 * REQUEST_INVALID, ABORTED and others; see `ERROR_CODES`.
 */
export async function load(path: string = defaultModelPath(), options: LoadOptions = {}): Promise<Engine> {
  if (typeof path !== 'string' || path === '')
    throw invalid('the path', 'a file or folder', path, 'omit it for the model that ships');
  checkOptionNames('load', options, LOAD_OPTIONS);
  checkSignal(options.signal);
  checkExecution(options);
  const local = await localModel(path);
  const checkpoint = await openCheckpoint(local);
  try {
    return await engineFor(local, checkpoint, await pageFolder(options.prefixCache), options);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function engineFor(
  path: string,
  checkpoint: Checkpoint,
  folder: PageFolder | undefined,
  options: LoadOptions,
): Promise<Engine> {
  const { signal, threads, isa, load } = options;
  // The reference is for judging: unless told otherwise it rounds nothing.
  const judging = options.backend === 'reference';
  const { kvType = judging ? 'f32' : 'bf16', activations = judging ? 'f32' : 'rounded', exact = false } = options;
  if (activations !== 'rounded' && activations !== 'f32') throw invalid('activations', 'rounded or f32', activations);
  if (!KV_TYPES.includes(kvType)) throw invalid('kvType', 'bf16, e4m3 or f32', kvType);
  if (typeof exact !== 'boolean') throw invalid('exact', 'true or false', exact);
  const maxSequences = numberIn('maxSequences', options.maxSequences, { low: 1, high: 4096, integer: true }, 32);
  const memoryLimit = options.memory && numberIn('memory', options.memory, { low: 1, high: 2 ** 53, integer: true }, 0);
  const rules = options.rules === undefined ? [] : await readRules(options.rules);
  const backend = await backendOf(options.backend, options.imitateF16Cache);
  const built = await buildProgram(checkpoint, { kvType, contextLength: options.contextLength });
  const { config } = built;
  const [whole, fewer] = chosenExperts(built.program, options.expertsPerToken);
  const [program, late] = deferredExperts(whole, options.deferExperts);
  const lossy = [...fewer, ...late];
  const mostRows = Math.min(PASS.rows, Math.max(512, program.contextLength));
  const maxRows = numberIn('maxBatchRows', options.maxBatchRows, { low: 2, high: 65536, integer: true }, mostRows);
  const maxOutputs = Math.min(maxRows, MAX_OUTPUTS);
  const sharing = sharingRequest(options, { exact, rounded: activations === 'rounded', judging, maxRows });
  const available = Math.min(availableMemory(), memoryLimit ?? Number.POSITIVE_INFINITY);
  const vram = options.vram && numberIn('vram', options.vram, { low: 1, high: 2 ** 53, integer: true }, 0);
  const sizes: MemoryRequest = {
    contextLength: options.contextLength,
    modelContext: config.contextLength,
    kvBytes:
      options.kvBytes === undefined ? undefined : numberIn('kvBytes', options.kvBytes, { low: 0, high: 2 ** 53 }, 0),
    maxRows,
    maxOutputs,
    available,
  };
  chooseMemory(program, sizes); // refuses before anything else is looked at
  const machine = judging ? ({ device: 'cpu' } as const) : nativeMachine(isa);
  const wanted = { available, vram, contextLength: options.contextLength, maxRows };
  const automatic = judging ? [] : placeAutomatically(whole, machine, wanted);
  const tokenizer = await createTokenizer(checkpoint);
  const template = await createChatTemplate(checkpoint, tokenizer).catch((error) => {
    if (error instanceof TandemError && error.code === 'TEMPLATE_INVALID') return error; // `chat` says so, when asked
    throw error;
  });
  checkSignal(signal);
  const placeBy = (on: Machine, behind: readonly Rule[]) =>
    lowerBoth(program, on, { exact, activations, rules: [...rules, ...behind] });
  const prepare = async (placed: Program) => {
    const shared = sharedLayers(placed);
    const memory = memoryFor(placed, machine, { ...sizes, vram, reserved: reservedFor(shared, sharing) });
    const limits = { pages: memory.pages, maxRows, maxOutputs };
    const profile = shared.length > 0 ? await likelyProfile(isa) : undefined;
    const wish = withRates(placed, shared, profile, sharing);
    const planned = planSharing(shared, cardRoom(placed, machine, { ...limits, vram }), wish);
    const layers = shared.filter(({ layer }) => (planned.hot?.slots[layer] ?? 0) > 0);
    const wrong = await heldExpertsFailure({ placed, checkpoint, layers, threads, signal });
    if (wrong !== undefined) said.push(heldWarning(wrong));
    const plan = wrong === undefined ? planned : { ...planned, hot: undefined };
    const executable = await watched(options, (watch) =>
      backend.prepare(placed, checkpoint, {
        ...limits,
        ...watch,
        threads,
        isa,
        load,
        memory: memoryLimit,
        sharing: plan,
      }),
    );
    const check = await checkGpus({ executable, checkpoint, limits, signal }).catch(async (error) => {
      await executable.dispose();
      throw error;
    });
    return { placed, memory, executable, plan, check };
  };
  const wished = placeBy(machine, automatic);
  if (rules.length > 0 && !judging) checkPlaced(wished, machine, { ...wanted, maxOutputs });
  const said = gpuWarnings(wished, machine);
  const { placed, memory, executable, plan, check } = await prepare(wished).catch((error) => {
    // What nobody asked for gives way; the CPU then has to hold the model alone.
    const processor = withoutGpus(machine);
    if (!canGiveWay(error) || !usesGpus(wished) || usesGpus(placeBy(machine, []))) throw error;
    said.splice(0, said.length, fellBack(error));
    return prepare(placeBy(processor, placeAutomatically(whole, processor, wanted)));
  });
  const shares = plan.hot !== undefined || plan.stream !== undefined;
  const numerics = shares || executionsOf(placed).some(({ tiles }) => tiles !== undefined) ? 'fast' : 'exact';
  const pageStore =
    folder &&
    new PageStore({
      folder,
      fingerprint: await fingerprint(checkpoint, {
        kvType,
        numerics,
        activations,
        isa: String(executable.description.isa ?? backend.name),
        ...(usesGpus(placed) && { cards: cardsOf(placed) }),
        ...(fewer.length > 0 && { experts: String(options.expertsPerToken) }),
        ...(late.length > 0 && { deferred: String(options.deferExperts) }),
        placement: JSON.stringify(executionsOf(placed)),
      }).catch(async (error) => {
        await executable.dispose();
        throw error;
      }),
      pageBytes: pageBytes(placed.kv),
    });
  return new Engine({
    executable,
    tokenizer,
    template,
    path,
    pageStore,
    samplingDefaults: samplingDefaults(checkpoint),
    limits: {
      maxRows,
      maxOutputs,
      maxSequences,
      targetMs: TARGET_MS,
      soloTargetMs: SOLO_TARGET_MS,
      soloMostMs: SOLO_MOST_MS,
      firstRows: firstRows(placed, executable.description, SOLO_TARGET_MS),
      // Experts that stream cost the same whatever the rows.
      worthwhileRows: plan.stream ? () => maxRows : worthwhileRowsOf(placed),
      prefixCache: options.prefixCache !== false,
    },
    close: async (shared) => {
      if (shared !== undefined) await keepHits(hitsKey(checkpoint, program), shared);
      await checkpoint.close();
    },
    info: {
      model: checkpoint.name,
      architecture: program.name,
      backend: backend.name,
      contextLength: memory.contextLength,
      contextLimit: memory.contextLimit,
      vocabSize: program.vocabSize,
      kvType,
      numerics,
      weights: memory.weights,
      kv: memory.kv,
      buffers: memory.buffers,
      execution: { ...executable.description, ...(check && { 'gpu check': describeCheck(check) }) },
      warnings: [
        ...ruleWarnings(program, rules),
        ...lossy,
        ...(check ? said.map(checkedWarning) : said),
        ...sharingWarnings(executable.description),
      ],
    },
  });
}

/** With the experts a token that were asked for, and what is to be said about it. */
function chosenExperts(program: Program, wanted: number | undefined): [program: Program, warnings: string[]] {
  if (wanted === undefined) return [program, []];
  const chosen = withExpertsPerToken(program, wanted);
  const warning = lossyWarning(expertsPerToken(program)!, wanted);
  return [chosen, warning === undefined ? [] : [warning]];
}

/** With as many of them deferred. */
function deferredExperts(program: Program, wanted: number | undefined): [program: Program, warnings: string[]] {
  if (wanted === undefined) return [program, []];
  const deferred = withDeferredExperts(program, wanted);
  const warning = deferralWarning(program, deferred, wanted);
  return [deferred, warning === undefined ? [] : [warning]];
}

const FOLDER_BYTES = 8 * 2 ** 30;

/** Before anything large is loaded: a folder that cannot be used says so at once. */
async function pageFolder(prefixCache: LoadOptions['prefixCache'] = true): Promise<PageFolder | undefined> {
  if (typeof prefixCache === 'boolean') return undefined;
  const { directory, maxBytes } = prefixCache ?? {};
  if (typeof directory !== 'string' || directory === '') throw invalid('prefixCache.directory', 'a folder', directory);
  const limit = numberIn('prefixCache.maxBytes', maxBytes, { low: 0, high: 2 ** 53 }, FOLDER_BYTES);
  return PageFolder.open({ directory, maxBytes: limit });
}

/**
 * Prepares under the user's signal and callback: an abort tells the signal's reason, and a callback that throws ends the
 * loading with what it threw (native would have nobody to throw it to).
 */
async function watched(
  { signal, onProgress }: LoadOptions,
  prepare: (watch: Pick<PrepareOptions, 'signal' | 'onProgress'>) => Promise<Executable>,
): Promise<Executable> {
  const stop = new AbortController();
  let thrown: { error: unknown } | undefined;
  const forward = () => stop.abort();
  const progress: PrepareOptions['onProgress'] = (loaded, total) => {
    if (thrown) return;
    try {
      onProgress?.(loaded, total);
    } catch (error) {
      thrown = { error };
      stop.abort();
    }
  };
  signal?.addEventListener('abort', forward);
  try {
    const executable = await prepare({ signal: stop.signal, onProgress: onProgress && progress });
    if (!stop.signal.aborted) return executable;
    await executable.dispose(); // the stop came too late to be heard
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    signal?.removeEventListener('abort', forward);
  }
  if (thrown) throw thrown.error;
  throw cancelled(signal);
}

async function backendOf(name: LoadOptions['backend'] = 'native', imitateF16Cache = false): Promise<Backend> {
  if (typeof imitateF16Cache !== 'boolean' || (imitateF16Cache && name !== 'reference'))
    throw invalid('imitateF16Cache', 'true only on the reference backend', imitateF16Cache, "add backend: 'reference'");
  if (name === 'reference') return (await import('../backend/reference.ts')).referenceBackend({ imitateF16Cache });
  if (name === 'native') return (await import('../backend/native/backend.ts')).nativeBackend();
  throw invalid('backend', 'native or reference', name);
}

/** What goes to the backend as it is; in the user's words here, not in those of the addon's interface. */
function checkExecution({ threads, isa, load, signal, onProgress }: LoadOptions): void {
  numberIn('threads', threads, { low: 0, high: 65536, integer: true }, 0);
  if (isa !== undefined && !ISAS.includes(isa)) throw invalid('isa', `one of ${ISAS.join(', ')}`, isa);
  if (load !== undefined && !['auto', 'mmap', 'pages'].includes(load))
    throw invalid('load', 'auto, mmap or pages', load);
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalid('onProgress', 'a function', onProgress);
  if (signal !== undefined && typeof signal?.addEventListener !== 'function')
    throw invalid('signal', 'an AbortSignal', signal);
}

function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal);
}

function cancelled(signal: AbortSignal | undefined): TandemError {
  return new TandemError('ABORTED', { room: 'engine', rule: 'loading was cancelled', cause: signal?.reason });
}
