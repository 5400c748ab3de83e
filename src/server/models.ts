/**
 * The models a server has, loaded at start or on demand, and unloaded when idle or when another one needs the room. Names
 * are labels: nothing a client sends is ever used as a path or an address.
 *
 *     request for B ─▶ room? ─no─▶ the model used longest ago, idle ones first: what runs on it ends, it is unloaded ─▶ load B
 *
 * One model is loaded at a time, in the order they were asked for: models that do not fit together take turns.
 */
import type { Engine } from '../engine/engine.ts';
import { availableMemory, totalMemory } from '../engine/memory.ts';
import { TandemError } from '../errors.ts';
import {
  type Lease,
  type ModelEntry,
  type ModelEvent,
  ModelSlot,
  type ModelSource,
  type SlotHost,
} from './model-slot.ts';

export type { Lease, ModelEntry, ModelEvent, ModelSource, ModelState } from './model-slot.ts';

export interface ModelHostOptions {
  /** Milliseconds without a request after which a model is unloaded; 0: never. */
  readonly idleMs: number;
  /** Most models in memory at once, ≥ 1. Default: as many as fit. */
  readonly maxLoaded?: number;
  /** Bytes that all models together may take. Default: the machine's, or what its control group allows. */
  readonly memory?: number;
  /** Bytes that are free now. For tests. */
  readonly available?: () => number;
  readonly told?: (event: ModelEvent) => void;
}

/** What a model takes beside its weights, as a share of them: KV pages and buffers, at least. */
const BESIDE = 1.1;

export class ModelHost {
  readonly #slots: readonly ModelSlot[];
  readonly #maxLoaded: number;
  readonly #memory: number;
  readonly #memoryGiven: boolean;
  readonly #available: () => number;
  /** The last loading in the queue. */
  #admitted: Promise<unknown> = Promise.resolve();
  #disposed = false;

  /** REQUEST_INVALID where two models would answer to one name. */
  constructor(sources: readonly ModelSource[], options: ModelHostOptions) {
    const { idleMs, maxLoaded = Number.POSITIVE_INFINITY, available = availableMemory, told = () => {} } = options;
    this.#maxLoaded = maxLoaded;
    this.#memory = options.memory ?? totalMemory();
    this.#memoryGiven = options.memory !== undefined;
    this.#available = available;
    checkNames(sources);
    const admit: SlotHost['admit'] = (slot, load) => this.#admit(slot, load);
    this.#slots = sources.map((source) => new ModelSlot(source, idleMs, { admit, told }));
  }

  list(): readonly ModelEntry[] {
    return this.#slots.map((slot) => slot.entry);
  }

  /** By id or alias, `NAME:latest` as Ollama's clients write it too; no name gives the first model. */
  find(name: string): ModelEntry | undefined {
    return this.#find(name)?.entry;
  }

  /** The engine of a loaded model; undefined where it is not loaded. Starts nothing. */
  peek(name: string): Engine | undefined {
    return this.#find(name)?.engine;
  }

  /**
   * The loaded engine, kept loaded until `release`; starts loading where it is not. `wait: false`: MODEL_LOADING at once
   * instead of waiting. MODEL_UNKNOWN, ABORTED, or why loading failed.
   */
  async acquire(name: string, { signal, wait }: { signal: AbortSignal; wait: boolean }): Promise<Lease> {
    const slot = this.#find(name);
    if (slot === undefined) throw this.unknown(name);
    if (this.#disposed) throw stopping();
    return slot.acquire(signal, wait);
  }

  /** Loads it, where it is not. */
  async warm(name: string): Promise<void> {
    await this.#find(name)?.warm();
  }

  /** Unloads once nothing runs on it. */
  async unload(name: string): Promise<void> {
    await this.#find(name)?.unload();
  }

  /** How long a model stays after its last request from now on, milliseconds: −1 for ever, 0: until what runs has ended. */
  keep(name: string, ms: number): void {
    this.#find(name)?.keep(ms);
  }

  /**
   * Whether requests are answered without waiting long: `ready` also where nothing is loaded because nothing was asked;
   * else what the first model is at.
   */
  get readiness():
    | { readonly state: 'ready'; readonly model?: undefined }
    | { readonly state: 'loading' | 'failed'; readonly model: ModelEntry } {
    const models = this.list();
    if (models.some(({ state }) => state === 'ready')) return { state: 'ready' };
    for (const state of ['loading', 'failed'] as const) {
      const model = models.find((entry) => entry.state === state);
      if (model) return { state, model };
    }
    return { state: 'ready' };
  }

  /** Ends what runs and frees everything; prefixes on their way to the disk get `saveMs` milliseconds. */
  async dispose(saveMs?: number): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#slots.map((slot) => slot.dispose(saveMs)));
  }

  unknown(name: string): TandemError {
    const shown = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
    return new TandemError('MODEL_UNKNOWN', {
      room: 'server',
      rule: `this server has ${this.#slots.map((slot) => slot.entry.id).join(', ')}`,
      given: `a request asked for ${shown}`,
      fix: 'ask for a model of /v1/models, or start the server with --alias',
    });
  }

  #find(name: string): ModelSlot | undefined {
    const label = name.endsWith(':latest') ? name.slice(0, -7) : name;
    if (label === '' || label === 'default') return this.#slots[0];
    return this.#slots.find(({ names }) => names.includes(label));
  }

  #admit(slot: ModelSlot, load: (memory: number | undefined) => Promise<Engine>): Promise<Engine> {
    const admitted = this.#admitted.then(async () => {
      await this.#makeRoom(slot);
      if (this.#disposed) throw stopping();
      return load(this.#share(slot));
    });
    this.#admitted = admitted.catch(() => {});
    return admitted;
  }

  /** Unloads others until this one fits. What does not fit an empty machine is loaded all the same: it is mapped then. */
  async #makeRoom(slot: ModelSlot): Promise<void> {
    for (;;) {
      const loaded = this.#slots.filter((other) => other !== slot && other.engine !== undefined);
      if (loaded.length === 0 || this.#disposed || this.#fits(slot, loaded)) return;
      const order = (a: ModelSlot, b: ModelSlot) => Number(a.busy) - Number(b.busy) || a.usedAt - b.usedAt;
      await loaded.sort(order)[0].retire();
    }
  }

  #fits(slot: ModelSlot, loaded: readonly ModelSlot[]): boolean {
    const needed = slot.bytes * BESIDE;
    return loaded.length < this.#maxLoaded && needed <= this.#memory - bytesOf(loaded) && needed <= this.#available();
  }

  /** Models that all fit together share memory by their sizes; else one takes what the loaded ones leave. */
  #share(slot: ModelSlot): number | undefined {
    const all = this.#slots.reduce((sum, { size }) => sum + size, 0);
    const together = this.#slots.length <= this.#maxLoaded && all * BESIDE <= this.#memory;
    if (together && this.#slots.length > 1) return Math.floor((this.#memory * slot.size) / all);
    if (!this.#memoryGiven) return undefined;
    return Math.max(1, this.#memory - bytesOf(this.#slots.filter((other) => other !== slot && other.engine)));
  }
}

function bytesOf(slots: readonly ModelSlot[]): number {
  return slots.reduce((sum, { bytes }) => sum + bytes, 0);
}

function checkNames(sources: readonly ModelSource[]): void {
  const owners = new Map<string, number>();
  sources.forEach(({ card, aliases }, index) => {
    for (const name of [card.id, ...aliases]) {
      if ((owners.get(name) ?? index) !== index)
        throw new TandemError('REQUEST_INVALID', {
          room: 'server',
          rule: 'each model of a server has names of its own',
          given: `two are called ${name}`,
          fix: 'give them as NAME=PATH',
        });
      owners.set(name, index);
    }
  });
}

function stopping(): TandemError {
  return new TandemError('SERVER_STOPPING', { room: 'server', rule: 'the server is shutting down' });
}
