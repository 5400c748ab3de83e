/** One message: a question that can be edited, or an answer with its thoughts, calls and figures. */
import { memo } from 'preact/compat';
import { AnswerView } from './answer-view.tsx';
import type { Message } from './conversation.ts';
import { QuestionView } from './question-view.tsx';

export interface MessageProps {
  readonly conversationId: string;
  readonly message: Message;
  readonly last: boolean;
}

export const MessageView = memo(
  function MessageView(props: MessageProps) {
    return props.message.role === 'user' ? <QuestionView {...props} /> : <AnswerView {...props} />;
  },
  (before, after) => before.message === after.message && before.last === after.last,
);
