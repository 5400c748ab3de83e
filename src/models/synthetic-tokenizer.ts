/**
 * A tokenizer for synthetic models of any vocabulary size: byte-level BPE whose words are all strings of two, three and
 * four lower-case letters, in order, until the vocabulary is full. Every token is unique and can be reached.
 */
import { type GgufValue, metadataArray } from '../formats/gguf-encode.ts';

const LETTERS = [...'abcdefghijklmnopqrstuvwxyz'];
const SPECIAL = ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', '<｜▁pad▁｜>'];
const TEMPLATE =
  "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}" +
  '{% if add_generation_prompt %}assistant:{% endif %}';

/** Keys without their `tokenizer.` prefix. The vocabulary has at least 259 entries: special tokens and bytes. */
export function syntheticTokenizer(vocabSize: number, pre: string): Map<string, GgufValue> {
  const { tokens, merges } = vocabulary(vocabSize);
  const types = tokens.map((_, id) => (id < SPECIAL.length ? 3 : 1));
  return new Map<string, GgufValue>([
    ['ggml.model', { type: 'string', value: 'gpt2' }],
    ['ggml.pre', { type: 'string', value: pre }],
    ['ggml.tokens', { type: 'array', value: metadataArray('string', tokens) }],
    ['ggml.token_type', { type: 'array', value: metadataArray('i32', types) }],
    ['ggml.merges', { type: 'array', value: metadataArray('string', merges) }],
    ['ggml.bos_token_id', { type: 'u32', value: 0 }],
    ['ggml.eos_token_id', { type: 'u32', value: 1 }],
    ['ggml.padding_token_id', { type: 'u32', value: 2 }],
    ['ggml.add_bos_token', { type: 'bool', value: false }],
    ['chat_template', { type: 'string', value: TEMPLATE }],
  ]);
}

/** The same as a Hugging Face folder has it, JSON by file name. */
export function syntheticTokenizerFiles(vocabSize: number): Record<string, string> {
  const { tokens, merges } = vocabulary(vocabSize);
  const added = SPECIAL.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: bytes,
    post_processor: null,
    decoder: bytes,
    model: { type: 'BPE', unk_token: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
  };
  const [bos_token, eos_token, pad_token] = SPECIAL;
  const config = {
    add_bos_token: false,
    add_eos_token: false,
    bos_token,
    eos_token,
    pad_token,
    tokenizer_class: 'PreTrainedTokenizerFast',
    chat_template: TEMPLATE,
  };
  return { 'tokenizer.json': JSON.stringify(tokenizer), 'tokenizer_config.json': JSON.stringify(config) };
}

function vocabulary(size: number): { tokens: string[]; merges: string[] } {
  const tokens = [...SPECIAL, ...byteLetters()];
  const merges: string[] = [];
  const pairs = LETTERS.flatMap((a) => LETTERS.map((b) => a + b));
  const join = (left: string[], right: string[]) => {
    for (const a of left) {
      for (const b of right) {
        if (tokens.length >= size) return;
        tokens.push(a + b);
        merges.push(`${a} ${b}`);
      }
    }
  };
  join(LETTERS, LETTERS);
  join(pairs, LETTERS);
  join(pairs, pairs);
  return { tokens: tokens.slice(0, size), merges };
}

/** The 256 characters that stand for bytes in byte-level BPE: printable Latin-1 stays, the rest moves to U+0100 on. */
function byteLetters(): string[] {
  let moved = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : moved++);
  });
}
