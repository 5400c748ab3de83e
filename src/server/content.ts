/** Message content as clients write it (text, null, or parts) as the text a language model reads. */
import { TandemError } from '../errors.ts';

interface Part {
  readonly type?: string;
  readonly text?: string | null;
  readonly refusal?: string | null;
}

/** Joins text parts. REQUEST_INVALID where a part is no text: this server's models read text only. */
export function contentText(content: string | readonly Part[] | null | undefined, where: string): string {
  if (content === null || content === undefined) return '';
  if (typeof content === 'string') return content;
  return content
    .map(({ type, text, refusal }) => {
      if (typeof text === 'string') return text;
      if (typeof refusal === 'string') return refusal;
      throw new TandemError('REQUEST_INVALID', {
        room: 'server',
        rule: 'the models of this server read text only',
        given: `${where} holds a part of type ${JSON.stringify(type ?? 'unknown')}`,
        fix: 'send text parts, or a model that reads images to another server',
      });
    })
    .join('');
}
