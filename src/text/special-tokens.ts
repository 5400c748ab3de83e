/**
 * Tokens that are found in text before anything else cuts it: control tokens (`<｜User｜>`, `<|im_end|>`) and
 * user-defined ones (`<think>`). Longest match first, leftmost first.
 */

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** A control token: found only where special tokens are parsed. Others are found in any text. */
  readonly control: boolean;
  /** Swallows white space before or after it. */
  readonly stripLeft?: boolean;
  readonly stripRight?: boolean;
}

/**
 * A noncharacter that is put inside the text of a control token to keep it text. It never reaches the vocabulary:
 * guarded text is encoded without it.
 */
export const CONTROL_GUARD = '\uFDD0';

/** A stretch of text, or an added token that stood there. */
export type Section = string | AddedToken;

/**
 * True for `<|…|>` and `<｜…｜>`: DeepSeek-V3's tokenizer.json calls `<｜User｜>` and the tool markers "not special",
 * yet user text must never become one of them.
 */
export function looksLikeControl(content: string): boolean {
  return /^<[|｜][\s\S]*[|｜]>$/u.test(content);
}

/** One step into the tokens' texts: by the next UTF-16 unit. */
interface TrieNode {
  readonly next: Map<string, TrieNode>;
  token?: AddedToken;
}

export class AddedTokenSplitter {
  private readonly root: TrieNode = { next: new Map() };

  constructor(tokens: Iterable<AddedToken>) {
    for (const token of tokens) {
      let node = this.root;
      for (const unit of token.content.split('')) {
        let next = node.next.get(unit);
        if (next === undefined) {
          next = { next: new Map() };
          node.next.set(unit, next);
        }
        node = next;
      }
      if (node !== this.root) node.token ??= token;
    }
  }

  /** Cuts text at its added tokens; control tokens stay text unless `parseSpecial`. Empty stretches are left out. */
  split(text: string, parseSpecial: boolean): Section[] {
    const sections: Section[] = [];
    let from = 0;
    let stripNext = false;
    const flush = (to: number, stripEnd: boolean): void => {
      let stretch = text.slice(from, to);
      if (stripNext) stretch = stretch.trimStart();
      if (stripEnd) stretch = stretch.trimEnd();
      if (stretch !== '') sections.push(stretch);
    };
    for (let at = 0; at < text.length; ) {
      const token = this.at(text, at, parseSpecial);
      if (token === undefined) {
        at++;
        continue;
      }
      flush(at, token.stripLeft === true);
      sections.push(token);
      at += token.content.length;
      from = at;
      stripNext = token.stripRight === true;
    }
    flush(text.length, false);
    return sections;
  }

  /** The text with a guard inside each control token, so that parsing special tokens finds none. */
  guard(text: string): string {
    let out = '';
    let from = 0;
    const clean = text.replaceAll(CONTROL_GUARD, '');
    for (let at = 0; at < clean.length; at++) {
      const token = this.at(clean, at, true);
      if (token === undefined) continue;
      if (token.control) {
        out += clean.slice(from, at + 1) + CONTROL_GUARD;
        from = at + 1;
      } else at += token.content.length - 1;
    }
    return out + clean.slice(from);
  }

  /** The longest token that stands at a place. */
  private at(text: string, at: number, parseSpecial: boolean): AddedToken | undefined {
    let found: AddedToken | undefined;
    let node = this.root.next.get(text[at]);
    for (let end = at + 1; node !== undefined; end++) {
      if (node.token !== undefined && (parseSpecial || !node.token.control)) found = node.token;
      node = node.next.get(text[end]);
    }
    return found;
  }
}
