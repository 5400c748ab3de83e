import { describe, expect, it } from 'vitest';
import type { OutputParser } from '../text/parsers/events.ts';
import { Generation, type GenerationSink } from './generation.ts';
import { TextRequest } from './request.ts';
import { Sampler, samplingSettings } from './sampling.ts';
import { Sequence } from './sequence.ts';

/** A request whose parser fails when it is asked for the rest. */
function brokenRequest(sink: GenerationSink): TextRequest {
  const parser: OutputParser = {
    push: () => [],
    finish: () => {
      throw new Error('the parser broke');
    },
  };
  const prompt = Int32Array.of(1);
  const sampler = new Sampler(samplingSettings({ seed: 1 }, {}, 16), prompt);
  const sequence = new Sequence({ prompt, maxLen: 4, sampler, stopTokens: new Set() });
  const tokenizer = { tokenBytes: () => new Uint8Array(0) } as never;
  return new TextRequest({ sequence, tokenizer, stop: [], silent: new Set(), parser, sink, now: 0 });
}

describe('a request whose parser fails at the end', () => {
  it.each(['finish', 'fail'] as const)('%s settles it all the same', async (how) => {
    const generation = new Generation((sink) => {
      const request = brokenRequest(sink);
      queueMicrotask(() => (how === 'finish' ? request.finish(1) : request.fail(new Error('the pass broke'), 1)));
      return () => {};
    });
    await expect(generation).rejects.toThrow(how === 'finish' ? 'the parser broke' : 'the pass broke');
  });
});
