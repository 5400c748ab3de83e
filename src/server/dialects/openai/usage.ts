/** Usage and timings as OpenAI's and llama.cpp's clients read them. */
import type { GenerationResult, TokenLogprob } from '../../../engine/result.ts';

export function openaiUsage({ usage }: GenerationResult) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.totalTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
  };
}

/** llama.cpp's names: Open WebUI shows them beside an answer, and what it takes to have the same again. */
export function llamaTimings({ usage, timings, temperature, seed }: GenerationResult) {
  return {
    cache_n: usage.cachedTokens,
    prompt_n: usage.promptTokens - usage.cachedTokens,
    prompt_ms: round(timings.promptMs),
    prompt_per_second: round(timings.promptTokensPerSecond),
    predicted_n: usage.completionTokens,
    predicted_ms: round(timings.generationMs),
    predicted_per_second: round(timings.tokensPerSecond),
    queue_ms: round(timings.queueMs),
    temperature,
    ...(temperature > 0 ? { seed: Number(seed) } : {}),
  };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** One entry of `logprobs.content`. */
export function openaiLogprob({ top, ...token }: TokenLogprob) {
  const entry = ({ text, logprob, bytes }: Omit<TokenLogprob, 'top'>) => ({ token: text, logprob, bytes: [...bytes] });
  return { ...entry(token), top_logprobs: top.map(entry) };
}

export function finishReason(result: GenerationResult): 'stop' | 'length' | 'tool_calls' {
  if (result.finishReason === 'length') return 'length';
  return result.toolCalls.length > 0 ? 'tool_calls' : 'stop';
}

/** Arguments as the wire wants them: JSON always, `{}` for none. */
export function callArguments(json: string): string {
  return json.trim() === '' ? '{}' : json;
}
