/** The worker thread of long prompts: renders and encodes them with a tokenizer and a template of its own. */
import { workerData } from 'node:worker_threads';
import { TandemError } from '../errors.ts';
import { openCheckpoint } from '../formats/open.ts';
import { type ChatTemplate, createChatTemplate } from '../text/chat-template.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { type ChatCall, encodeChat, encodeText, type TextCall } from './prompts.ts';
import { answerCalls } from './thread.ts';

interface Parts {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate | TandemError;
}

let parts: Promise<Parts> | undefined;

async function open(): Promise<Parts> {
  const checkpoint = await openCheckpoint((workerData as { path: string }).path);
  try {
    const tokenizer = await createTokenizer(checkpoint);
    const template = await createChatTemplate(checkpoint, tokenizer).catch((error) => {
      if (error instanceof TandemError) return error;
      throw error;
    });
    return { tokenizer, template };
  } finally {
    await checkpoint.close();
  }
}

answerCalls({
  async chat(call: ChatCall) {
    const { tokenizer, template } = await (parts ??= open());
    if (template instanceof TandemError) throw template;
    return encodeChat(template, tokenizer, call);
  },
  async text(call: TextCall) {
    return encodeText((await (parts ??= open())).tokenizer, call);
  },
});
