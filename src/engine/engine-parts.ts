/** What an engine is made of, and what it says of itself. */
import type { Executable, SharingCounts } from '../backend/backend.ts';
import type { TandemError } from '../errors.ts';
import type { KvType } from '../program/program.ts';
import type { ChatTemplate } from '../text/chat-template.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { PageStore } from './page-store.ts';
import type { SamplingDefaults } from './sampling.ts';

/** What is known about a loaded model. */
export interface EngineInfo {
  /** The checkpoint's name. */
  readonly model: string;
  /** `deepseek-v3` … */
  readonly architecture: string;
  readonly backend: string;
  /** Most tokens of a sequence, prompt and answer together, and what set it. */
  readonly contextLength: number;
  readonly contextLimit: 'model' | 'option' | 'memory';
  readonly vocabSize: number;
  readonly kvType: KvType;
  /** `exact`: a row's bits do not depend on batch, chunks and threads; `fast`: those of long prompts may (tiles). */
  readonly numerics: 'exact' | 'fast';
  /** Bytes. */
  readonly weights: number;
  readonly kv: number;
  readonly buffers: number;
  /** What the backend chose: ISA, threads, how weights were loaded. */
  readonly execution: Readonly<Record<string, string | number>>;
  /** What `load` found odd and went on without: rules that decide nothing. */
  readonly warnings: readonly string[];
}

/** What `load` puts together. */
export interface EngineParts {
  readonly executable: Executable;
  readonly tokenizer: Tokenizer;
  /** Or why there is none, for whoever wants to chat. */
  readonly template: ChatTemplate | TandemError;
  /** The checkpoint, for threads that need a tokenizer of their own; absent: long prompts are read like short ones. */
  readonly path?: string;
  readonly info: EngineInfo;
  readonly samplingDefaults?: SamplingDefaults;
  readonly limits: EngineLimits;
  /** Prefixes that outlive the process; needs an executable whose pages can be read. */
  readonly pageStore?: PageStore;
  /** Called once, after the executable is gone, with what GPUs had computed of experts. */
  readonly close?: (shared: SharingCounts | undefined) => Promise<void>;
}

export interface EngineLimits {
  readonly maxRows: number;
  readonly maxOutputs: number;
  readonly maxSequences: number;
  /** Time a pass with prefill rows should take, milliseconds: beside others that decode, and where nobody does. */
  readonly targetMs: number;
  readonly soloTargetMs: number;
  /** Most that one may take where nobody decodes and fewer rows would waste its time; default: `soloTargetMs`. */
  readonly soloMostMs?: number;
  /** Rows of the first pass where nobody decodes, before any speed was measured. */
  readonly firstRows: number;
  /** Rows below which a pass wastes its time, by its first position (placement/worthwhile-rows.ts); default: none. */
  readonly worthwhileRows?: (position: number) => number;
  /** False: no page is shared between requests. Default true. */
  readonly prefixCache?: boolean;
}
