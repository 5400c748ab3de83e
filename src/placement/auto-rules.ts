/**
 * The automatic placement: the rules that a `Fit` means for a Program. They come behind those of the user, so that what
 * people say goes before what was computed, and they say why.
 */
import type { Program } from '../program/program.ts';
import type { Fit } from './fit.ts';
import type { Rule } from './rule.ts';

/** `gpus`: names of the devices beside the processor, in order. None: no rules, all steps are where they are without. */
export function autoRules(program: Program, fit: Fit, gpus: readonly string[]): Rule[] {
  if (gpus.length === 0 || fit.kind === 'cpu') return [];
  const [first] = gpus;
  const device = gpus.length === 1 ? first : `${first.replace(/\d+$/, '')}{layer * gpus / layers}`;
  const because = (reason: string) => `automatic: ${reason}`;
  const rules: Rule[] = [
    {
      match: { op: ['embed', 'sample'] },
      place: { device: 'cpu' },
      origin: because('a token reads one row of the table, and is drawn where its parameters are'),
    },
  ];
  if (fit.kind === 'hybrid') {
    const layers = program.steps.flatMap(({ op, layer }) => (op === 'experts' ? [layer] : [])).slice(0, fit.gpuLayers);
    if (layers.length > 0)
      rules.push({
        match: { op: ['experts'], layers: [[layers[0], layers[layers.length - 1]]] },
        place: { device },
        origin: because(`the VRAM has room for the experts of ${layers.length} layers`),
      });
    rules.push({ match: { op: ['experts'] }, place: { device: 'cpu' }, origin: because(fit.reason) });
  }
  rules.push({ match: {}, place: { device }, origin: because(fit.reason) });
  return rules;
}
