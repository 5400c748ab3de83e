/**
 * The shipped model on native kernels solves its puzzles as often as its PyTorch original did: greedy answers equal the
 * expected text to the letter. Near ties of two logits may tip a text either way, so the score is judged, and the texts
 * that PyTorch got right must agree but for a few.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { defaultModelPath, load } from '../../src/index.ts';
import { nativeIsas } from '../conformance/harness.ts';

interface Puzzle {
  readonly prompt: string;
  readonly thinking: string;
  readonly answer: string;
  readonly greedy_exact: boolean;
}

const jug = fileURLToPath(new URL('../../models/jug/', import.meta.url));
const puzzles = JSON.parse(readFileSync(`${jug}puzzles.json`, 'utf8')) as Puzzle[];
const expected = puzzles.filter((puzzle) => puzzle.greedy_exact).length;

const { reason } = await nativeIsas();

describe.skipIf(reason)(`puzzles ${reason ?? ''}`, () => {
  it.each([
    ['Q8_0 GGUF', defaultModelPath()],
    ['Hugging Face bf16', `${jug}hf`],
  ])(
    `%s: as many exact answers as PyTorch`,
    async (_name, path) => {
      await using engine = await load(path);
      const exact = await Promise.all(
        puzzles.map(async ({ prompt, thinking, answer }) => {
          const result = await engine.chat([{ role: 'user', content: prompt }], { temperature: 0 });
          return result.reasoning.trim() === thinking.trim() && result.text.trim() === answer.trim();
        }),
      );
      const score = exact.filter(Boolean).length;
      const lost = puzzles.filter((puzzle, i) => puzzle.greedy_exact && !exact[i]).length;
      expect(score, `of ${puzzles.length}, PyTorch ${expected}`).toBeGreaterThanOrEqual(expected);
      expect(lost, 'puzzles that PyTorch got right and native did not').toBeLessThanOrEqual(3);
    },
    600_000,
  );
});
