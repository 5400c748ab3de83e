/** Names of models on a hub: `organization/model[:QUANT][@revision]`. Text only; nothing is looked up here. */
import { TandemError } from '../errors.ts';

export interface ModelReference {
  /** `organization/model`. */
  readonly repository: string;
  /** As written: `Q4_K_M`, `UD-Q2_K_XL`, `safetensors`, or the name of a file or folder. */
  readonly quant?: string;
  /** Branch, tag or commit; undefined: `main`. */
  readonly revision?: string;
}

const PART = '[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?';
const REFERENCE = new RegExp(`^(${PART}/${PART})(?::([A-Za-z0-9_][\\w.-]*))?(?:@([A-Za-z0-9_][\\w./-]*))?$`);
/** How people write where it is; taken off. */
const HUBS = /^(?:https?:\/\/)?(?:hf\.co|(?:www\.)?huggingface\.co)\//;

/** Undefined where the text is no such name: a path with more parts, a file name, words. */
export function parseReference(text: string): ModelReference | undefined {
  const match = REFERENCE.exec(text.replace(HUBS, ''));
  if (match === null) return undefined;
  const [, repository, quant, revision] = match;
  if (repository.includes('..') || repository.includes('--') || repository.endsWith('.gguf')) return undefined;
  if (revision?.split('/').some((part) => part === '' || /^\.*$/.test(part))) return undefined;
  return { repository, ...(quant && { quant }), ...(revision && { revision }) };
}

/** As `parseReference`, or REQUEST_INVALID. */
export function toReference(text: string): ModelReference {
  const reference = parseReference(text);
  if (reference !== undefined) return reference;
  throw new TandemError('REQUEST_INVALID', {
    room: 'hub',
    rule: 'a model on a hub is named organization/model, organization/model:QUANT or organization/model:QUANT@revision',
    given: text === '' ? 'the name is empty' : text,
    fix: 'copy the name from the page of the model, e.g. unsloth/DeepSeek-R1-GGUF:Q4_K_M',
  });
}

export function formatReference({ repository, quant, revision }: ModelReference): string {
  return `${repository}${quant === undefined ? '' : `:${quant}`}${revision === undefined ? '' : `@${revision}`}`;
}
