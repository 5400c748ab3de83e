/**
 * Regular expressions of rules come from files that people pass on. One that doubles its work with every letter would hang
 * whoever loads it, so each is tried on names like those of models, within a time.
 */
import { runInNewContext } from 'node:vm';
import { TandemError } from '../errors.ts';
import type { Rule } from '../placement/rule.ts';

/** Some of what steps are called; what is slow on none of them is slow on no step. */
const NAMES: readonly string[] = [
  'model.embed_tokens',
  'model.layers.0.input_layernorm',
  'model.layers.5.self_attn.q_proj',
  'model.layers.17.self_attn.kv_a_proj_with_mqa',
  'model.layers.60.post_attention_layernorm',
  'model.layers.3.mlp.experts',
  'model.layers.31.mlp.shared_experts.down_proj',
  'model.layers.47.block_sparse_moe.experts',
  'model.norm',
  'lm_head',
];
/** A pattern needs microseconds; a busy machine may stand still for a while. */
const PATIENCE_MS = 2_000;

/** FORMAT_INVALID for the first rule whose pattern does not end. */
export function checkPatterns(rules: readonly Rule[]): void {
  for (const { match, origin } of rules) {
    if (match.name === undefined) continue;
    try {
      const context = { names: NAMES, pattern: match.name };
      runInNewContext('for (const name of names) name.search(pattern)', context, { timeout: PATIENCE_MS });
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
      throw new TandemError('FORMAT_INVALID', {
        room: 'engine',
        rule: 'a regular expression of a rule ends in no time',
        given: `${origin}: ${match.name} was not done with names such as ${NAMES[3]} after ${PATIENCE_MS / 1000} s`,
        fix: 'write it without repetitions inside of repetitions',
        cause,
      });
    }
  }
}
