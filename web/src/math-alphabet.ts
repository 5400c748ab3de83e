/**
 * Letters of mathematical alphabets as characters of their own (𝐱, ℝ, ℒ): browsers follow `mathvariant` no longer, but for
 * `normal`. Unicode, Mathematical Alphanumeric Symbols, U+1D400–U+1D7FF; letters that were encoded earlier stand elsewhere.
 */

/** Where A, a, 0, Α and α begin; 0: the alphabet has none. */
type Starts = readonly [capital: number, small: number, digit: number, greekCapital: number, greek: number];

const ALPHABETS: Readonly<Record<string, Starts>> = {
  bold: [0x1d400, 0x1d41a, 0x1d7ce, 0x1d6a8, 0x1d6c2],
  italic: [0x1d434, 0x1d44e, 0, 0x1d6e2, 0x1d6fc],
  'bold-italic': [0x1d468, 0x1d482, 0, 0x1d71c, 0x1d736],
  script: [0x1d49c, 0x1d4b6, 0, 0, 0],
  'bold-script': [0x1d4d0, 0x1d4ea, 0, 0, 0],
  fraktur: [0x1d504, 0x1d51e, 0, 0, 0],
  'bold-fraktur': [0x1d56c, 0x1d586, 0, 0, 0],
  'double-struck': [0x1d538, 0x1d552, 0x1d7d8, 0, 0],
  'sans-serif': [0x1d5a0, 0x1d5ba, 0x1d7e2, 0, 0],
  'bold-sans-serif': [0x1d5d4, 0x1d5ee, 0x1d7ec, 0x1d756, 0x1d770],
  'sans-serif-italic': [0x1d608, 0x1d622, 0, 0, 0],
  'sans-serif-bold-italic': [0x1d63c, 0x1d656, 0, 0x1d790, 0x1d7aa],
  monospace: [0x1d670, 0x1d68a, 0x1d7f6, 0, 0],
};

const ELSEWHERE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  italic: { h: 'ℎ' },
  script: { B: 'ℬ', E: 'ℰ', F: 'ℱ', H: 'ℋ', I: 'ℐ', L: 'ℒ', M: 'ℳ', R: 'ℛ', e: 'ℯ', g: 'ℊ', o: 'ℴ' },
  fraktur: { C: 'ℭ', H: 'ℌ', I: 'ℑ', R: 'ℜ', Z: 'ℨ' },
  'double-struck': { C: 'ℂ', H: 'ℍ', N: 'ℕ', P: 'ℙ', Q: 'ℚ', R: 'ℝ', Z: 'ℤ' },
};

const FIRST = ['A', 'a', '0', 'Α', 'α'].map((letter) => letter.charCodeAt(0));
const LENGTH = [26, 26, 10, 25, 25];

/** One letter in an alphabet; what the alphabet has not stays as it is. */
function inAlphabet(letter: string, name: string): string {
  const earlier = ELSEWHERE[name]?.[letter];
  if (earlier !== undefined) return earlier;
  const code = letter.charCodeAt(0);
  const group = FIRST.findIndex((first, i) => code >= first && code < first + LENGTH[i]);
  const start = ALPHABETS[name][group] ?? 0;
  return start === 0 ? letter : String.fromCodePoint(start + code - FIRST[group]);
}

/** MathML whose letters say by themselves of which alphabet they are. */
export function withAlphabets(mathml: string): string {
  return mathml.replace(
    /<(mi|mn|mtext|mo) mathvariant="([a-z-]+)"([^>]*)>([^<]*)</g,
    (whole, tag: string, name: string, rest: string, text: string) =>
      name in ALPHABETS
        ? `<${tag}${rest}>${text.replace(/&#?\w+;|[\s\S]/g, (one) => (one.length > 1 ? one : inAlphabet(one, name)))}<`
        : whole,
  );
}
