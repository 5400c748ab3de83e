/** The shown conversation. It follows the answer to its end while the reader is there; a new question always comes into view. */
import { useLayoutEffect, useRef } from 'preact/hooks';
import { current } from './conversations.ts';
import { MessageView } from './message-view.tsx';
import { words } from './words.ts';

/** Pixels from the end within which the reader counts as there. */
const NEAR = 80;

export function ConversationView() {
  const place = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const conversation = current.value;
  const question = conversation?.messages.findLast(({ role }) => role === 'user')?.id;
  useLayoutEffect(() => {
    const element = place.current;
    if (element && follows.current) element.scrollTop = element.scrollHeight;
  });
  useLayoutEffect(() => {
    follows.current = true;
    const element = place.current;
    if (element) element.scrollTop = element.scrollHeight;
  }, [conversation?.id, question]);
  if (conversation === undefined || conversation.messages.length === 0)
    return (
      <div class="welcome">
        <h1>{words.value.welcome}</h1>
        <p class="faint keys">{words.value.hint}</p>
      </div>
    );
  return (
    <div
      class="conversation"
      ref={place}
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
        follows.current = scrollHeight - scrollTop - clientHeight < NEAR;
      }}
    >
      <div class="column" aria-live="polite">
        {conversation.messages.map((message, index) => (
          <MessageView
            key={message.id}
            conversationId={conversation.id}
            message={message}
            last={index === conversation.messages.length - 1}
          />
        ))}
      </div>
    </div>
  );
}
