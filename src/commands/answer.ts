/** Shows one answer as it comes: thinking dimmed, text plain, tool calls as JSON, and the line of figures at the end. */
import { isAbort } from '../errors.ts';
import type { Generation, GenerationResult } from '../index.ts';
import { formatRate, ProgressBar, paint } from './terminal.ts';

export interface AnswerStyle {
  /** Print the reasoning too. */
  readonly thinking: boolean;
}

/** Streams to stdout; resolves to the result, also to that of a stopped answer (`finishReason` is `abort`). */
export async function showAnswer(generation: Generation, style: AnswerStyle): Promise<GenerationResult> {
  let last: 'reasoning' | 'text' | 'tool' | undefined;
  const enter = (kind: 'reasoning' | 'text' | 'tool') => {
    if (last !== undefined && last !== kind) process.stdout.write('\n\n');
    last = kind;
  };
  // Blank lines between thinking and answer belong to the template; they are shown as one gap.
  let started = false;
  const bar = new ProgressBar('reading the prompt');
  try {
    for await (const event of generation) {
      switch (event.type) {
        case 'prefill':
          bar.update(event.done, event.total, 'tokens');
          break;
        case 'reasoning':
        case 'text': {
          bar.end();
          if (event.type === 'reasoning' && !style.thinking) break;
          if (last !== event.type) started = false;
          const text = started ? event.text : event.text.trimStart();
          if (text === '') break;
          if (!started) enter(event.type);
          started = true;
          process.stdout.write(event.type === 'reasoning' ? paint('dim', text) : text);
          break;
        }
        case 'tool-call-start':
          bar.end();
          enter('tool');
          process.stdout.write(paint('cyan', `${event.name}(`));
          break;
        case 'tool-call-arguments':
          process.stdout.write(paint('cyan', event.fragment));
          break;
        case 'tool-call-end':
          process.stdout.write(paint('cyan', ')'));
          break;
      }
    }
    return await generation;
  } catch (error) {
    if (isAbort(error) && generation.partial) return generation.partial;
    throw error;
  } finally {
    bar.end();
    if (last !== undefined) process.stdout.write('\n');
  }
}

/**
 * `prompt 38 tokens, 812 tok/s · generation 96 tokens, 310 tok/s · first token 0.05 s`, and the seed where one was needed.
 */
export function figures(result: GenerationResult): string {
  const { usage, timings } = result;
  if (usage.completionTokens === 0)
    return `prompt ${usage.promptTokens} tokens · stopped before the first token, after ${(timings.totalMs / 1000).toFixed(2)} s`;
  const parts = [
    `prompt ${usage.promptTokens} tokens, ${formatRate(timings.promptTokensPerSecond)} tok/s`,
    `generation ${usage.completionTokens} tokens, ${formatRate(timings.tokensPerSecond)} tok/s`,
    `first token ${(timings.timeToFirstTokenMs / 1000).toFixed(2)} s`,
  ];
  if (result.temperature > 0) parts.push(`seed ${result.seed}`);
  if (result.finishReason === 'length') parts.push('stopped at the length limit');
  if (result.finishReason === 'abort') parts.push('stopped');
  return parts.join(' · ');
}
