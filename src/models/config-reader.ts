/**
 * Typed access to a model's description: `config.json` of a Hugging Face folder, or the `<architecture>.…` keys of GGUF.
 * A missing or absurd value is one clear MODEL_INVALID that names the key.
 */
import { TandemError } from '../errors.ts';
import type { Checkpoint, MetadataArray, MetadataValue } from '../formats/checkpoint.ts';

/** Where a value is called what. A dotted Hugging Face key goes into objects; a GGUF key follows the architecture. */
export interface Field {
  readonly huggingface?: string;
  readonly gguf?: string;
}

/** No dimension of a model comes near it; a larger one is a damaged file. */
const MAX_COUNT = 2 ** 24;

export class ConfigReader {
  readonly checkpoint: Checkpoint;
  /** `model_type` or `general.architecture`. */
  readonly architecture: string;

  constructor(checkpoint: Checkpoint, architecture: string) {
    this.checkpoint = checkpoint;
    this.architecture = architecture;
  }

  get isGguf(): boolean {
    return this.checkpoint.kind === 'gguf';
  }

  has(field: Field): boolean {
    return this.#raw(field) !== undefined;
  }

  /** An integer in [minimum, maximum]. */
  count(field: Field, options: { default?: number; minimum?: number; maximum?: number } = {}): number {
    const { minimum = 1, maximum = MAX_COUNT } = options;
    const value = this.#number(field) ?? options.default;
    if (value === undefined) throw this.#missing(field);
    if (!Number.isInteger(value) || value < minimum || value > maximum) {
      throw this.#invalid(field, `an integer from ${minimum} to ${maximum}`, String(value));
    }
    return value;
  }

  /** 0 counts as absent. */
  countOptional(field: Field): number | undefined {
    return this.count(field, { default: 0, minimum: 0 }) || undefined;
  }

  /** A positive finite number. */
  real(field: Field, fallback?: number): number {
    const value = this.realOptional(field) ?? fallback;
    if (value === undefined) throw this.#missing(field);
    return value;
  }

  /** The same where it may be absent; with `zero`, 0 is a value too. */
  realOptional(field: Field, { zero = false } = {}): number | undefined {
    const value = this.#number(field);
    if (value === undefined || (zero && value === 0)) return value;
    if (!Number.isFinite(value) || value <= 0 || value > 1e12) {
      throw this.#invalid(field, zero ? 'a number from 0' : 'a positive number', String(value));
    }
    return value;
  }

  flag(field: Field, fallback: boolean): boolean {
    const value = this.#raw(field);
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw this.#invalid(field, 'true or false', show(value));
    return value;
  }

  text(field: Field, fallback: string): string {
    const value = this.#raw(field);
    if (value === undefined) return fallback;
    if (typeof value !== 'string') throw this.#invalid(field, 'a text', show(value));
    return value;
  }

  /** A list of integers; empty where absent. */
  counts(field: Field): number[] {
    const value = this.#raw(field);
    if (value === undefined) return [];
    const items: unknown = isMetadataArray(value) ? value.toArray() : value;
    if (!Array.isArray(items) || !items.every((item) => Number.isInteger(item))) {
      throw this.#invalid(field, 'a list of integers', show(value));
    }
    return items as number[];
  }

  /** A list of words; undefined where absent. */
  words(field: Field): string[] | undefined {
    const value = this.#raw(field);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.#invalid(field, 'a list of words', show(value));
    }
    return value;
  }

  /** MODEL_INVALID unless `condition`; `rule` names the keys. */
  expect(condition: boolean, rule: string, given: string): void {
    if (condition) return;
    throw new TandemError('MODEL_INVALID', {
      room: 'models',
      rule,
      given: `${this.checkpoint.name}: ${given}`,
      fix: 'the description is damaged or of a model that is not known; fetch it again',
    });
  }

  /** MODEL_UNSUPPORTED unless the text is one of `known`. */
  oneOf<T extends string>(field: Field, known: readonly T[], fallback: T): T {
    const value = this.text(field, fallback);
    if ((known as readonly string[]).includes(value)) return value as T;
    throw new TandemError('MODEL_UNSUPPORTED', {
      room: 'models',
      rule: `${this.key(field)} is one of ${known.join(', ')}`,
      given: `${this.checkpoint.name} has "${value}"`,
      fix: 'this variant of the architecture is not known yet',
    });
  }

  /** The field's whole key in this checkpoint. */
  key(field: Field): string {
    if (this.isGguf && field.gguf !== undefined) return `${this.architecture}.${field.gguf}`;
    return field.huggingface ?? `(no key for ${this.checkpoint.kind})`;
  }

  #number(field: Field): number | undefined {
    const value = this.#raw(field);
    if (value === undefined) return undefined;
    if (typeof value === 'number') return value;
    if (typeof value === 'bigint') return Number(value);
    if (isMetadataArray(value) && value.length > 0) {
      const [first, ...rest] = value.toArray();
      if (typeof first === 'number' && rest.every((item) => item === first)) return first;
      throw new TandemError('MODEL_UNSUPPORTED', {
        room: 'models',
        rule: `${this.key(field)} is the same in all layers`,
        given: `${this.checkpoint.name} has one per layer`,
        fix: 'models that differ from layer to layer are not known yet',
      });
    }
    throw this.#invalid(field, 'a number', show(value));
  }

  /** JSON null counts as absent. */
  #raw(field: Field): unknown {
    if (this.isGguf) {
      return field.gguf === undefined ? undefined : this.checkpoint.metadata.get(`${this.architecture}.${field.gguf}`);
    }
    let value: unknown = this.checkpoint.config;
    for (const part of field.huggingface?.split('.') ?? ['']) {
      value = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[part] : undefined;
    }
    return value ?? undefined;
  }

  #missing(field: Field): TandemError {
    return new TandemError('MODEL_INVALID', {
      room: 'models',
      rule: `a model of type ${this.architecture} says ${this.key(field)}`,
      given: `${this.checkpoint.name} does not`,
      fix: 'the description is incomplete; fetch the model again',
    });
  }

  #invalid(field: Field, rule: string, given: string): TandemError {
    return new TandemError('MODEL_INVALID', {
      room: 'models',
      rule: `${this.key(field)} is ${rule}`,
      given: `${this.checkpoint.name} has ${given}`,
      fix: 'the description is damaged; fetch the model again',
    });
  }
}

function isMetadataArray(value: unknown): value is MetadataArray {
  return typeof value === 'object' && value !== null && typeof (value as MetadataArray).toArray === 'function';
}

function show(value: unknown): string {
  if (isMetadataArray(value as MetadataValue)) return `a list of ${(value as MetadataArray).length}`;
  return typeof value === 'string' ? `"${value}"` : typeof value === 'object' ? JSON.stringify(value) : String(value);
}
