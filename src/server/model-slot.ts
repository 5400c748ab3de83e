/** One model of a server: whether it is loaded, who uses it, when it goes. */
import type { Engine } from '../engine/engine.ts';
import type { ModelCard } from '../engine/model-card.ts';
import { untilAborted } from '../engine/until-aborted.ts';
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
  /** How often it was loaded since the start. */
  readonly loads: number;
}

export interface Lease {
  readonly engine: Engine;
  readonly model: ModelEntry;
  release(): void;
}

export interface ModelSource {
  readonly card: ModelCard;
  readonly aliases: readonly string[];
  /** `memory`: most bytes it may take, where others need some too. */
  load(onProgress: (done: number, total: number) => void, memory?: number): Promise<Engine>;
}

/** What the slots of a host share: memory, and somebody who wants to know. */
export interface SlotHost {
  /** Runs one loading at a time, once there is room for this slot; `memory` as in `ModelSource.load`. */
  admit(slot: ModelSlot, load: (memory: number | undefined) => Promise<Engine>): Promise<Engine>;
  told(event: ModelEvent): void;
}

export interface ModelEvent {
  readonly model: string;
  readonly event: 'loading' | 'loaded' | 'failed' | 'unloaded';
  readonly ms?: number;
  readonly error?: string;
  /** What `load` found odd and went on without. */
  readonly warnings?: readonly string[];
}

export class ModelSlot {
  engine: Engine | undefined;
  /** When somebody last let it go, by the clock of `performance`. */
  usedAt = 0;
  readonly #source: ModelSource;
  readonly #host: SlotHost;
  #idleMs: number;
  #state: ModelState = 'unloaded';
  #progress = 0;
  #loads = 0;
  #error: unknown;
  #loading: Promise<Engine> | undefined;
  #unloading: Promise<void> | undefined;
  #leases = 0;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #expiresAt: number | undefined;
  #unloadWhenFree = false;
  /** Makes room for another model: new requests wait until it is gone, then load it again. */
  #retiring: Promise<void> | undefined;
  #free: (() => void) | undefined;

  constructor(source: ModelSource, idleMs: number, host: SlotHost) {
    this.#source = source;
    this.#idleMs = idleMs;
    this.#host = host;
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
      loads: this.#loads,
    };
  }

  /** What clients may call it. */
  get names(): readonly string[] {
    return [this.#source.card.id, ...this.#source.aliases];
  }

  /** Bytes of its weights. */
  get size(): number {
    return this.#source.card.size;
  }

  get busy(): boolean {
    return this.#leases > 0;
  }

  /** Bytes it takes, or would take at least. */
  get bytes(): number {
    const { engine } = this;
    if (engine === undefined) return this.size;
    return engine.info.weights + engine.info.kv + engine.info.buffers;
  }

  async acquire(signal: AbortSignal, wait: boolean): Promise<Lease> {
    while (this.#retiring !== undefined) {
      if (!wait) throw this.#stillLoading();
      await untilAborted(this.#retiring, signal);
    }
    this.#leases++;
    this.#stayIdle();
    try {
      const loading = this.warm();
      if (this.engine === undefined && !wait) throw this.#stillLoading();
      const engine = this.engine ?? (await untilAborted(loading, signal));
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

  /** From now on it stays so long after its last request: −1 for ever, 0: only until what runs has ended. */
  keep(ms: number): void {
    if (ms === 0) {
      this.unload().catch(() => {});
      return;
    }
    this.#idleMs = ms;
    this.#unloadWhenFree = false;
    this.#stayIdle();
    if (this.#leases === 0) this.#startIdle();
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
    this.#stayIdle();
    this.#unloading = engine.dispose().finally(() => {
      this.#unloading = undefined;
      this.#host.told({ model: this.#source.card.id, event: 'unloaded' });
    });
    await this.#unloading;
  }

  /** Unloads once what runs has ended; who asks for it meanwhile waits. */
  retire(): Promise<void> {
    this.#retiring ??= (async () => {
      if (this.#leases > 0)
        await new Promise<void>((resolve) => {
          this.#free = resolve;
        });
      await this.unload().catch(() => {});
    })().finally(() => {
      this.#retiring = undefined;
    });
    return this.#retiring;
  }

  /** `saveMs`: what prefixes get on their way to the disk. */
  async dispose(saveMs?: number): Promise<void> {
    clearTimeout(this.#idle);
    await this.#loading?.catch(() => {});
    await this.engine?.dispose({ saveMs });
    await this.#unloading;
  }

  async #load(): Promise<Engine> {
    const { id } = this.#source.card;
    this.#state = 'loading';
    this.#progress = 0;
    this.#error = undefined;
    try {
      await this.#unloading; // never two copies in memory
      this.engine = await this.#host.admit(this, async (memory) => {
        this.#host.told({ model: id, event: 'loading' });
        const started = performance.now();
        const engine = await this.#source.load((done, total) => {
          this.#progress = total > 0 ? done / total : 0;
        }, memory);
        const { warnings } = engine.info;
        const odd = warnings.length > 0 && { warnings };
        this.#host.told({ model: id, event: 'loaded', ms: Math.round(performance.now() - started), ...odd });
        return engine;
      });
      this.#state = 'ready';
      this.#progress = 1;
      this.#loads++;
      this.usedAt = performance.now();
      if (this.#leases === 0) this.#startIdle();
      return this.engine;
    } catch (error) {
      this.#state = 'failed';
      this.#error = error;
      this.#host.told({ model: id, event: 'failed', error: messageOf(error) });
      throw error;
    }
  }

  #release(): void {
    this.usedAt = performance.now();
    if (--this.#leases > 0) return;
    this.#free?.();
    this.#free = undefined;
    if (this.#unloadWhenFree) {
      this.#unloadWhenFree = false;
      this.unload().catch(() => {});
    } else this.#startIdle();
  }

  #stayIdle(): void {
    clearTimeout(this.#idle);
    this.#expiresAt = undefined;
  }

  #startIdle(): void {
    if (this.#idleMs <= 0 || this.engine === undefined) return;
    clearTimeout(this.#idle);
    this.#expiresAt = Date.now() + this.#idleMs;
    // Longer waits than a timer can count are for ever.
    if (this.#idleMs < 2 ** 31) this.#idle = setTimeout(() => this.unload().catch(() => {}), this.#idleMs).unref();
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
