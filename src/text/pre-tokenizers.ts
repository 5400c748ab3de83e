/**
 * The pre-tokenizers a GGUF file names in `tokenizer.ggml.pre`: regular expressions that cut text into pieces before
 * byte-pair encoding. Each is the cut of the published tokenizer.json (or tiktoken script) of the models that use it,
 * written for Oniguruma as there; several expressions cut one after the other.
 */
import { TandemError } from '../errors.ts';

export interface PreTokenizerRule {
  /** Each cuts the pieces of the one before; matches and what lies between them become pieces. */
  readonly patterns: readonly string[];
  readonly ignoreMerges?: boolean;
  /** Text is composed (NFC) first. */
  readonly nfc?: boolean;
  /** A begin-of-sequence token is added where the file does not say. */
  readonly addBos?: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const TAIL = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

/** Words of cl100k_base and its children; `digits` says how many digits make a piece. */
const cl100k = (digits: string): string =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${TAIL}`;

/** Words of o200k_base and Kimi-K2: upper-case run then lower-case run, where `not` may exclude a script. */
const caseRuns = (not: string): string => {
  const upper = `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}${not}]`;
  const lower = `[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}${not}]`;
  const lead = '[^\\r\\n\\p{L}\\p{N}]?';
  return `${lead}${upper}*${lower}+${CONTRACTIONS}?|${lead}${upper}+${lower}*${CONTRACTIONS}?`;
};

const CJK = '[一-龥ࠀ-一가-\u{D7FF}]+';

/**
 * Cased letters as DeepSeek-LLM's file lists them (those of Unicode 11, without mathematical alphabets). Ends that
 * Unicode normalization would change are escaped: an editor once turned U+1F7D into U+03CE and the range around.
 */
const DEEPSEEK_LETTERS =
  'A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼ' +
  'ℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃';

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const LLAMA3: PreTokenizerRule = { patterns: [cl100k('\\p{N}{1,3}')], ignoreMerges: true, addBos: true };
const QWEN2: PreTokenizerRule = { patterns: [cl100k('\\p{N}')], nfc: true };
const GLM4: PreTokenizerRule = { patterns: [cl100k('\\p{N}{1,3}')] };
const GPT4O: PreTokenizerRule = {
  patterns: [`${caseRuns('')}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${TAIL}`],
  ignoreMerges: true,
};

const RULES: Readonly<Record<string, PreTokenizerRule>> = {
  'deepseek-llm': {
    patterns: ['[\\r\\n]', `\\s?[${DEEPSEEK_LETTERS}]+`, '\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+', '\\s+$', CJK, '\\p{N}'],
  },
  'deepseek-coder': { patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', CJK, '\\p{N}'] },
  'deepseek-v3': {
    patterns: [
      '\\p{N}{1,3}',
      '[一-龥\u3040-ゟ゠-ヿ]+',
      '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+' +
        `| ?[\\p{P}\\p{S}]+[\\r\\n]*|${TAIL}`,
    ],
  },
  'llama-bpe': LLAMA3,
  'llama-v3': LLAMA3,
  llama3: LLAMA3,
  qwen2: QWEN2,
  'deepseek-r1-qwen': { patterns: QWEN2.patterns },
  'gpt-4o': GPT4O,
  llama4: GPT4O,
  glm4: GLM4,
  'chatglm-bpe': GLM4,
  'kimi-k2': {
    patterns: [`\\p{Han}+|${caseRuns('&&[^\\p{Han}]')}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${TAIL}`],
    ignoreMerges: true,
  },
  'gpt-2': { patterns: [GPT2] },
  default: { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'] },
};

export const PRE_TOKENIZERS: readonly string[] = Object.keys(RULES);

/** The rule of a `tokenizer.ggml.pre` name. Throws TOKENIZER_INVALID for a name it does not know: guessing gives wrong ids. */
export function preTokenizerRule(name: string): PreTokenizerRule {
  if (Object.hasOwn(RULES, name)) return RULES[name];
  throw new TandemError('TOKENIZER_INVALID', {
    room: 'text',
    rule: 'tokenizer.ggml.pre names a known pre-tokenizer',
    given: `"${name}"; known are ${PRE_TOKENIZERS.join(', ')}`,
    fix: "add its expressions to src/text/pre-tokenizers.ts, or load the model's Hugging Face folder",
  });
}
