/** Formulas as MathML, which browsers set without fonts or styles of ours. KaTeX wakes up at the first formula. */
import { signal } from '@preact/signals';
import type { MarkedExtension, Tokens } from 'marked';
import { escapeHtml } from './escape.ts';
import { withAlphabets } from './math-alphabet.ts';

type Katex = typeof import('katex').default;

/** KaTeX, once it is awake: what shows formulas draws them anew then. */
export const katex = signal<Katex | undefined>(undefined);
let waking = false;

function formula(tex: string, display: boolean): string {
  const tool = katex.value;
  if (tool === undefined) {
    if (!waking)
      import('katex').then((module) => {
        katex.value = module.default;
      });
    waking = true;
    return `<code>${escapeHtml(tex)}</code>`;
  }
  try {
    // Limits: a hostile formula may neither expand for ever nor fill the screen.
    const html = tool.renderToString(tex, {
      output: 'mathml',
      displayMode: display,
      strict: 'ignore',
      trust: false,
      maxExpand: 500,
      maxSize: 20,
    });
    // The TeX source inside would be shown as text once its wrapper is not let through; styles break the page's policy.
    const math = withAlphabets(html.replace(/<annotation[^>]*>[\s\S]*?<\/annotation>| style="[^"]*"/g, ''));
    return display ? `<div class="formula">${math}</div>` : math;
  } catch {
    // No TeX, or not yet whole while it streams: show what was written.
    return `<code>${escapeHtml(tex)}</code>`;
  }
}

interface MathToken extends Tokens.Generic {
  readonly tex: string;
  readonly display: boolean;
}

const BLOCK = /^ {0,3}(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;
const INLINE_DISPLAY = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/;
/** As Pandoc reads dollars: none beside a space inside, no digit behind; so prices stay prices. */
const INLINE = /^(?:\$(?!\s|\$)((?:\\[\s\S]|[^\\$\n])+?)(?<!\s)\$(?!\d)|\\\(([\s\S]+?)\\\))/;

function token(type: string, match: RegExpExecArray | null, display: boolean): MathToken | undefined {
  return match === null ? undefined : { type, raw: match[0], tex: (match[1] ?? match[2]).trim(), display };
}

const renderer = (found: Tokens.Generic) => formula((found as MathToken).tex, (found as MathToken).display);

export const mathExtension: MarkedExtension = {
  extensions: [
    {
      name: 'mathBlock',
      level: 'block',
      start: (text) => text.match(/(?:^|\n) {0,3}(?:\$\$|\\\[)/)?.index,
      tokenizer: (text) => token('mathBlock', BLOCK.exec(text), true),
      renderer,
    },
    {
      name: 'math',
      level: 'inline',
      start: (text) => text.match(/\$|\\\(|\\\[/)?.index,
      tokenizer: (text) => token('math', INLINE_DISPLAY.exec(text), true) ?? token('math', INLINE.exec(text), false),
      renderer,
    },
  ],
};
