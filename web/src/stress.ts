/**
 * Where Markdown's own rules of stress fail what models write. `**注意（一）**这里` is strong: CommonMark sees no end there,
 * because a letter follows punctuation without a space, as it does in Chinese and Japanese. `3~5 天，10~15 天` is no deletion:
 * that takes two tildes.
 */
import type { MarkedExtension, Tokens } from 'marked';

/** Strong text that begins or ends with punctuation of full width or with any quotation mark or bracket. */
const STRONG = /^\*\*(?![\s*])((?:\\[\s\S]|[^\\*\n]|\*(?!\*))+?)(?<![\s*\\])\*\*(?!\*)/;
const EDGE = /^[\p{Ps}\p{Pi}“‘]|[\p{Pe}\p{Pf}。，、：；？！…—～·％]$/u;

const DELETED = /^~~(?=[^\s~])((?:\\[\s\S]|[^\\])*?[^\s~])~~(?!~)/;

export const stressExtension: MarkedExtension = {
  extensions: [
    {
      name: 'fullWidthStrong',
      level: 'inline',
      start: (text) => text.match(/\*\*/)?.index,
      tokenizer(text) {
        const match = STRONG.exec(text);
        if (match === null || !EDGE.test(match[1])) return undefined;
        return { type: 'fullWidthStrong', raw: match[0], tokens: this.lexer.inlineTokens(match[1]) };
      },
      renderer(token) {
        return `<strong>${this.parser.parseInline((token as Tokens.Strong).tokens)}</strong>`;
      },
      childTokens: ['tokens'],
    },
  ],
  tokenizer: {
    del(text) {
      const match = DELETED.exec(text);
      return match === null
        ? undefined
        : { type: 'del', raw: match[0], text: match[1], tokens: this.lexer.inlineTokens(match[1]) };
    },
  },
};
