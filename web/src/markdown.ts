/**
 * An answer's markdown as a tree to show. Answers are hostile until proven otherwise, behind two walls: raw HTML is shown
 * as text but for a few bare tags, and DOMPurify lets only the tags and attributes below through. Images become links: a
 * picture fetched from elsewhere would carry the conversation away in its address.
 */
import DOMPurify from 'dompurify';
import { Marked, Renderer, type Token } from 'marked';
import { escapeHtml } from './escape.ts';
import { highlight } from './highlight.ts';
import { mathExtension } from './math.ts';
import { alignTables } from './math-table.ts';
import { stressExtension } from './stress.ts';
import { words } from './words.ts';

const BARE_TAG = /^<\/?(?:br|sub|sup|kbd|b|i|u|em|strong)\s*\/?>$/i;

const TAGS = (
  'p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code span div button strong em del b i u sub sup kbd table thead tbody tr th td a #text ' +
  'math mrow mi mo mn ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mstyle mpadded mphantom menclose mmultiscripts mprescripts none'
).split(' ');
const ATTRIBUTES = (
  'class title start type align colspan rowspan target rel data-copy ' +
  'xmlns display mathvariant mathcolor mathbackground mathsize accent accentunder columnalign columnspacing columnlines rowlines rowspacing fence stretchy separator form lspace rspace linethickness notation scriptlevel displaystyle minsize maxsize movablelimits symmetric largeop width height depth voffset'
).split(' ');

const marked = new Marked(mathExtension, stressExtension, {
  gfm: true,
  // Models end lines where they want them to end.
  breaks: true,
  renderer: {
    html: ({ text }) => (BARE_TAG.test(text.trim()) ? text : escapeHtml(text)),
    image: ({ href, text }) =>
      `<a href="${escapeHtml(href)}">${escapeHtml(`[${words.value.image}${text === '' ? '' : `: ${text}`}]`)}</a>`,
    // A wide table scrolls in its place, its cells as wide as they want to be.
    table(token) {
      return `<div class="table">${Renderer.prototype.table.call(this, token)}</div>`;
    },
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    code: ({ text, lang }) => {
      const language = /^[\w+#.-]+/.exec(lang ?? '')?.[0].toLowerCase() ?? '';
      const copy = `<button type="button" class="quiet" data-copy>${words.value.copy}</button>`;
      const head = `<div class="code-head"><span>${escapeHtml(language)}</span>${copy}</div>`;
      return `<div class="code">${head}<pre><code>${highlight(text, language)}</code></pre></div>`;
    },
  },
});

DOMPurify.addHook('afterSanitizeAttributes', (element) => {
  if (element.tagName !== 'A' || !element.hasAttribute('href')) return;
  element.setAttribute('target', '_blank');
  element.setAttribute('rel', 'noopener noreferrer');
});

/** The blocks of a text: while it grows only the last ones change. */
export function blocks(text: string): Token[] {
  return marked.lexer(text).filter(({ type }) => type !== 'space' && type !== 'def');
}

export function blockTree(block: Token): DocumentFragment {
  const tree = DOMPurify.sanitize(marked.parser([block]), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ['href', ...ATTRIBUTES],
    ADD_URI_SAFE_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
  });
  alignTables(tree);
  return tree;
}
