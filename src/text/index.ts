/** The text room: tokenizer, chat template, detokenizer, stop strings, parsers of a model's output. */
export { type ChatPrompt, chatPrompt } from './chat-prompt.ts';
export {
  ChatTemplate,
  type ChatTemplateOptions,
  createChatTemplate,
  opensThinking,
  type RenderOptions,
} from './chat-template.ts';
export { Detokenizer } from './detokenizer.ts';
export { type ChatMessage, type ChatRole, separateReasoning, type ToolCall, type ToolDefinition } from './messages.ts';
export { joinEvents, type OutputEvent, type OutputParser } from './parsers/events.ts';
export { type ParserChoice, parserFor } from './parsers/index.ts';
export { PRE_TOKENIZERS } from './pre-tokenizers.ts';
export { StopMatcher, type StopResult } from './stop-matcher.ts';
export { createTokenizer, type EncodeOptions, type Tokenizer } from './tokenizer.ts';
