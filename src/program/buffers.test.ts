import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { lifetimes, planBuffers } from './buffers.ts';
import type { Program, Step } from './program.ts';
import type { Value } from './tensor.ts';

/** Steps that each write one or two values and read any before. */
const programs: fc.Arbitrary<Program> = fc
  .array(
    fc.record({
      outputs: fc.array(fc.record({ rows: fc.constantFrom('T', 'O'), columns: fc.integer({ min: 1, max: 64 }) }), {
        minLength: 1,
        maxLength: 2,
      }),
      reads: fc.array(fc.nat(), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .chain((drafts) => fc.tuple(fc.constant(drafts), fc.nat()))
  .map(([drafts, pick]) => {
    const values: Value[] = [];
    const steps = drafts.map(({ outputs, reads }, index): Step => {
      const inputs = reads.flatMap((read) => {
        const value = values.length > 0 ? read % values.length : -1;
        return value < 0 ? [] : [{ kind: 'value' as const, value, start: 0, columns: values[value].columns }];
      });
      const ids = outputs.map(({ rows, columns }) => {
        const id = values.length;
        values.push({ id, name: `v${id}`, type: 'f32', rows: rows as Value['rows'], columns });
        return id;
      });
      return { op: 'any', name: `s${index}`, layer: -1, inputs, outputs: ids, attributes: {} };
    });
    return {
      name: 'random',
      vocabSize: 1,
      contextLength: 1,
      values,
      weights: [],
      kv: { pageTokens: 64, type: 'f32', layers: [] },
      steps,
      logits: pick % values.length,
    };
  });

/** Plays the program: a slot that is written holds its value until its last reader is through. */
function play(program: Program): void {
  const { slots, slotOf } = planBuffers(program);
  const holds = new Map<number, number>();
  for (const step of program.steps) {
    for (const id of step.outputs) {
      const slot = slotOf[id];
      expect(slots[slot].rows).toBe(program.values[id].rows);
      expect(slots[slot].columns).toBeGreaterThanOrEqual(program.values[id].columns);
      holds.set(slot, id);
    }
    // After the outputs are written, the inputs are still whole: no step reads and writes the same bytes.
    for (const operand of step.inputs)
      if (operand?.kind === 'value') expect(holds.get(slotOf[operand.value])).toBe(operand.value);
  }
  expect(holds.get(slotOf[program.logits])).toBe(program.logits);
}

describe('the buffer plan', () => {
  it('never overwrites what is still read', () => {
    fc.assert(fc.property(programs, play));
  });

  it('no two values alive at once share a slot', () => {
    fc.assert(
      fc.property(programs, (program) => {
        const { slotOf } = planBuffers(program);
        const lives = lifetimes(program);
        for (let a = 0; a < lives.length; a++)
          for (let b = 0; b < a; b++)
            if (lives[a].first <= lives[b].last && lives[b].first <= lives[a].last)
              expect(slotOf[a]).not.toBe(slotOf[b]);
      }),
    );
  });

  it('reuses: layers add no slots', () => {
    const layer = ['mla', 'experts'] as const;
    const slots = (count: number) => {
      const { program } = tinyProgram({ seed: 1, layers: Array.from({ length: count }, () => layer) });
      play(program);
      return planBuffers(program).slots.length;
    };
    expect(slots(6)).toBe(slots(2));
    expect(slots(6)).toBeLessThan(12);
  });
});
