import { expect, test } from 'vitest';
import { tinyProgram } from '../../test/conformance/tiny-program.ts';
import { lower } from '../placement/lower.ts';
import { parseRules } from '../placement/rules-file.ts';
import { cardsOf } from './gpus.ts';

const card = (device: string, name: string, capability: string) => ({
  ...{ device, name, capability, bus: '', memoryBytes: 1, multiprocessors: 1, bandwidth: 1, bf16: 1, refused: '' },
});
const gpus = [card('cuda:0', 'NVIDIA A', '8.9'), card('cuda:1', 'NVIDIA B', '9.0')];
const { program } = tinyProgram({ seed: 4, layers: [['gqa', 'experts']] });

test('what is kept is kept for the cards that computed it, by name and architecture', () => {
  const machine = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
  const onGpu = parseRules([{ match: { op: ['embed', 'sample'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:1' } }]); // biome-ignore format: one line
  expect(cardsOf(lower(program, machine), { gpus })).toBe('');
  const placed = lower(program, machine, { rules: onGpu });
  expect(cardsOf(placed, { gpus })).toBe('cuda:1 NVIDIA B 9.0');
  expect(cardsOf(placed, { gpus: [gpus[0], { ...gpus[1], capability: '9.1' }] })).not.toBe(cardsOf(placed, { gpus }));
});
