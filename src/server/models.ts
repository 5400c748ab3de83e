/**
 * The models a server has, loaded at start or on demand and unloaded when idle. Names are labels: nothing a client
 * sends is ever used as a path or an address.
 */

import type { Engine } from '../engine/engine.ts';
import type { ModelCard } from '../engine/model-card.ts';
import { TandemError } from '../errors.ts';

export type ModelState = 'unloaded' | 'loading' | 'ready' | 'failed';

export interface ModelEntry extends ModelCard {
  readonly aliases: readonly string[];
  readonly state: ModelState;
  /** 0 … 1 while loading. */
  readonly progress: number;
  /** Why it failed. */
  readonly error?: string;
  /** When idleness will unload it, milliseconds since 1970. */
  readonly expiresAt?: number;
}

export interface Lease {
  readonly engine: Engine;
  readonly model: ModelEntry;
  release(): void;
}

export interface ModelSource {
  readonly card: ModelCard;
  readonly aliases: readonly string[];
  load(onProgress: (done: number, total: number) => void): Promise<Engine>;
}

export interface ModelHostOptions {
  /** Milliseconds without a request after which a model is unloaded; 0: never. */
  readonly idleMs: number;
}

export class ModelHost {
  readonly #slots: readonly ModelSlot[];
  #disposed = false;

  constructor(sources: readonly ModelSource[], { idleMs }: ModelHostOptions) {
    this.#slots = sources.map((source) => new ModelSlot(source, idleMs));
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
    if (this.#disposed)
      throw new TandemError('SERVER_STOPPING', { room: 'server', rule: 'the server is shutting down' });
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

  /** Ends what runs and frees everything. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#slots.map((slot) => slot.dispose()));
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
    return this.#slots.find(({ entry }) => entry.id === label || entry.aliases.includes(label));
  }
}

/** One model and whether it is loaded. */
class ModelSlot {
  engine: Engine | undefined;
  readonly #source: ModelSource;
  readonly #idleMs: number;
  #state: ModelState = 'unloaded';
  #progress = 0;
  #error: unknown;
  #loading: Promise<Engine> | undefined;
  #unloading: Promise<void> | undefined;
  #leases = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #expiresAt: number | undefined;
  #unloadWhenFree = false;

  constructor(source: ModelSource, idleMs: number) {
    this.#source = source;
    this.#idleMs = idleMs;
  }

  get entry(): ModelEntry {
    return {
      ...this.#source.card,
      contextLength: this.engine?.info.contextLength ?? this.#source.card.contextLength,
      aliases: this.#source.aliases,
      state: this.#state,
      progress: this.#progress,
      error: this.#error === undefined ? undefined : messageOf(this.#error),
      expiresAt: this.#expiresAt,
    };
  }

  async acquire(signal: AbortSignal, wait: boolean): Promise<Lease> {
    this.#leases++;
    clearTimeout(this.#idle);
    this.#expiresAt = undefined;
    try {
      const loading = this.warm();
      if (this.engine === undefined && !wait) {
        loading.catch(() => {});
        throw this.#stillLoading();
      }
      const engine = this.engine ?? (await abandonable(loading, signal));
      let held = true;
      return {
        engine,
        model: this.entry,
        release: () => {
          if (held) this.#release();
          held = false;
        },
      };
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** Loads, or waits for whoever does. A load that failed is tried again by the next request. */
  warm(): Promise<Engine> {
    if (this.engine !== undefined) return Promise.resolve(this.engine);
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    this.#loading.catch(() => {}); // told to whoever waits, and by `entry`
    return this.#loading;
  }

  async unload(): Promise<void> {
    await this.#loading?.catch(() => {});
    if (this.#leases > 0) {
      this.#unloadWhenFree = true;
      return;
    }
    const { engine } = this;
    if (engine === undefined) return this.#unloading;
    this.engine = undefined;
    this.#state = 'unloaded';
    this.#expiresAt = undefined;
    clearTimeout(this.#idle);
    this.#unloading = engine.dispose().finally(() => {
      this.#unloading = undefined;
    });
    await this.#unloading;
  }

  async dispose(): Promise<void> {
    clearTimeout(this.#idle);
    await this.#loading?.catch(() => {});
    await this.engine?.dispose();
    await this.#unloading;
  }

  async #load(): Promise<Engine> {
    this.#state = 'loading';
    this.#progress = 0;
    this.#error = undefined;
    try {
      await this.#unloading; // never two copies in memory
      this.engine = await this.#source.load((done, total) => {
        this.#progress = total > 0 ? done / total : 0;
      });
      this.#state = 'ready';
      this.#progress = 1;
      if (this.#leases === 0) this.#startIdle();
      return this.engine;
    } catch (error) {
      this.#state = 'failed';
      this.#error = error;
      throw error;
    }
  }

  #release(): void {
    if (--this.#leases > 0) return;
    if (this.#unloadWhenFree) {
      this.#unloadWhenFree = false;
      this.unload().catch(() => {});
    } else this.#startIdle();
  }

  #startIdle(): void {
    if (this.#idleMs <= 0 || this.engine === undefined) return;
    clearTimeout(this.#idle);
    this.#expiresAt = Date.now() + this.#idleMs;
    this.#idle = setTimeout(() => this.unload().catch(() => {}), this.#idleMs);
    this.#idle.unref();
  }

  #stillLoading(): TandemError {
    return new TandemError('MODEL_LOADING', {
      room: 'server',
      rule: 'a request is answered once its model is loaded',
      given: `${this.#source.card.id} is ${Math.floor(this.#progress * 100)} % there`,
      fix: 'try again in a few seconds',
    });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The promise's value, or ABORTED once the signal says so; the work goes on. */
function abandonable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () =>
      reject(new TandemError('ABORTED', { room: 'server', rule: 'the client went away', cause: signal.reason }));
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
