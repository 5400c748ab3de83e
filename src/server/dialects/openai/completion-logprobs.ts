/** `logprobs` of the old protocol: columns, a row a token. */
import type { Engine } from '../../../engine/engine.ts';
import type { PromptLogprob } from '../../../engine/prompt-logprobs.ts';
import type { TokenLogprob } from '../../../engine/result.ts';

export interface LogprobColumns {
  readonly tokens: readonly string[];
  /** Null of the first token of a prompt. */
  readonly token_logprobs: readonly (number | null)[];
  readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
  /** Where each token begins, characters from the start of prompt and answer. */
  readonly text_offset: readonly number[];
}

export function logprobColumns(entries: readonly TokenLogprob[], from: number): LogprobColumns {
  return columns(entries, from);
}

export function promptColumns(entries: readonly PromptLogprob[], engine: Engine): LogprobColumns {
  const text = (id: number) => engine.detokenize([id]);
  return columns(
    entries.map(({ id, logprob, top }) => ({
      text: text(id),
      logprob,
      top: top.map((other) => ({ text: text(other.id), logprob: other.logprob })),
    })),
    0,
  );
}

/** Of a prompt and its answer. */
export function joined(prompt: LogprobColumns | undefined, answer: LogprobColumns): LogprobColumns {
  if (prompt === undefined) return answer;
  return {
    tokens: [...prompt.tokens, ...answer.tokens],
    token_logprobs: [...prompt.token_logprobs, ...answer.token_logprobs],
    top_logprobs: [...prompt.top_logprobs, ...answer.top_logprobs],
    text_offset: [...prompt.text_offset, ...answer.text_offset],
  };
}

interface Row {
  readonly text: string;
  readonly logprob: number | undefined;
  readonly top: readonly { readonly text: string; readonly logprob: number }[];
}

function columns(rows: readonly Row[], from: number): LogprobColumns {
  let offset = from;
  return {
    tokens: rows.map(({ text }) => text),
    token_logprobs: rows.map(({ logprob }) => logprob ?? null),
    top_logprobs: rows.map(({ logprob, top }) =>
      logprob === undefined ? null : Object.fromEntries(top.map(({ text, logprob }) => [text, logprob])),
    ),
    text_offset: rows.map(({ text }) => {
      const at = offset;
      offset += text.length;
      return at;
    }),
  };
}
