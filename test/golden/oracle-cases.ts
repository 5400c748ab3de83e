/** What bench/oracle.mjs puts to node-llama-cpp, and what oracle.test.ts recalls of its answers. */
import type { HuggingFaceConfig } from '../../src/models/synthetic.ts';
import { TINY_CONFIGS } from './tiny-configs.ts';

/** Three times the original context of the models with scaled positions. */
export const IDS = Array.from({ length: 200 }, (_, i) => 3 + ((i * i * 37 + i * 11) % 269));

/** Positions whose logits are kept: within and beyond the original context. */
export const KEPT = [1, 40, 63, 64, 131, 199];

/** The peer knows DeepSeek without q-LoRA by its number of layers, and none that is dense throughout. */
const CHANGES: Readonly<Record<string, HuggingFaceConfig>> = {
  'deepseek-v2-lite, YaRN': { num_hidden_layers: 27 },
  'deepseek-v2, groups by their best': { q_lora_rank: 20 },
};
const LEFT_OUT = ['deepseek-v3, every layer dense'];

/** Tiny models that the peer can load. */
export const ORACLE_CONFIGS: readonly (readonly [name: string, config: HuggingFaceConfig])[] = Object.entries(
  TINY_CONFIGS,
)
  .filter(([name]) => !LEFT_OUT.includes(name))
  .map(([name, config]) => [name, { ...config, ...CHANGES[name] }]);
