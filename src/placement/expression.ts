/**
 * Devices as functions of the layer: `cuda:{layer * gpus / layers}`. Numbers, `layer`, `layers`, `gpus`, + - * / % and
 * brackets, nothing else; of each {…} the whole part is written into the text.
 */

export interface Variables {
  /** Decoder layer; steps before the layers count as the first, those after them as the last. */
  readonly layer: number;
  readonly layers: number;
  /** Accelerators of the machine. */
  readonly gpus: number;
}

/** The text with its numbers written in. */
export type Template = (variables: Variables) => string;

/** What is wrong with a text. */
export class ExpressionError extends Error {}

type Term = (variables: Variables) => number;

const VARIABLES: readonly (keyof Variables)[] = ['layer', 'layers', 'gpus'];

/** Characters of a template: brackets nest no deeper than a call stack. */
const LONGEST = 200;

/** Throws ExpressionError saying what is wrong and where. */
export function parseTemplate(text: string): Template {
  if (text.length > LONGEST)
    throw new ExpressionError(`it has ${text.length} characters; a device has at most ${LONGEST} characters`);
  const parts: (string | Term)[] = [];
  let rest = text;
  while (rest !== '') {
    const open = rest.indexOf('{');
    const close = rest.indexOf('}');
    if (open < 0 && close < 0) {
      parts.push(rest);
      break;
    }
    if (open < 0 || close < open) throw new ExpressionError(`"${text}" has a bracket { or } without the other`);
    parts.push(rest.slice(0, open), new Parser(rest.slice(open + 1, close)).whole());
    rest = rest.slice(close + 1);
  }
  return (variables) => parts.map((part) => (typeof part === 'string' ? part : whole(part(variables)))).join('');
}

/** −0 is 0; what is no number stays visible. */
function whole(value: number): string {
  return String(Math.trunc(value) + 0);
}

/** sum := product (('+' | '-') product)*   product := factor (('*' | '/' | '%') factor)*   factor := number | name | '(' sum ')' | '-' factor */
class Parser {
  readonly #text: string;
  readonly #words: string[];
  #at = 0;

  constructor(text: string) {
    this.#text = text;
    this.#words = text.match(/\d+(?:\.\d+)?|[A-Za-z_]\w*|\S/g) ?? [];
  }

  whole(): Term {
    const term = this.#sum();
    if (this.#at < this.#words.length) throw this.#unexpected();
    return term;
  }

  #sum(): Term {
    let left = this.#product();
    for (;;) {
      const [a, operator] = [left, this.#take('+', '-')];
      if (operator === undefined) return left;
      const b = this.#product();
      left = operator === '+' ? (v) => a(v) + b(v) : (v) => a(v) - b(v);
    }
  }

  #product(): Term {
    let left = this.#factor();
    for (;;) {
      const [a, operator] = [left, this.#take('*', '/', '%')];
      if (operator === undefined) return left;
      const b = this.#factor();
      if (operator === '*') left = (v) => a(v) * b(v);
      else if (operator === '/') left = (v) => a(v) / b(v);
      else left = (v) => a(v) % b(v);
    }
  }

  #factor(): Term {
    if (this.#take('-') !== undefined) {
      const term = this.#factor();
      return (v) => -term(v);
    }
    if (this.#take('(') !== undefined) {
      const term = this.#sum();
      if (this.#take(')') === undefined) throw this.#unexpected();
      return term;
    }
    const word = this.#words[this.#at];
    if (word !== undefined && /^\d/.test(word)) {
      this.#at++;
      const number = Number(word);
      return () => number;
    }
    const name = VARIABLES.find((variable) => variable === word);
    if (name === undefined) throw this.#unexpected();
    this.#at++;
    return (v) => v[name];
  }

  #take(...words: string[]): string | undefined {
    return words.includes(this.#words[this.#at]) ? this.#words[this.#at++] : undefined;
  }

  #unexpected(): ExpressionError {
    const word = this.#words[this.#at];
    const found = word === undefined ? 'ends too early' : `has "${word}" where it cannot stand`;
    return new ExpressionError(
      `{${this.#text}} ${found}; expressions are made of numbers, ${VARIABLES.join(', ')}, + - * / % and brackets`,
    );
  }
}
