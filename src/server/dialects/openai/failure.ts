/** OpenAI's form of a failure. */
import type { TandemError } from '../../../errors.ts';
import { httpFailure, openaiCode } from '../../failures.ts';

/** `param`: the first field a validator named, where it was one. */
export function openaiError(error: TandemError): { error: Record<string, unknown> } {
  const param = /; ([\w.[\]]+): /.exec(error.message)?.[1] ?? null;
  return {
    error: { message: error.message, type: httpFailure(error).type, param, code: openaiCode(error) },
  };
}
