/** All conversations: search, choose, rename, delete. */
import { signal, useComputed } from '@preact/signals';
import { running } from './answer.ts';
import type { Conversation } from './conversation.ts';
import { currentId, found, remove, rename, search } from './conversations.ts';
import { IconButton } from './icon-button.tsx';
import { newChat } from './keys.ts';
import { panel } from './panel.ts';
import { words } from './words.ts';

const renaming = signal('');

function Entry({ conversation: { id, title } }: { readonly conversation: Conversation }) {
  const w = words.value;
  const live = useComputed(() => running.value?.conversationId === id).value;
  if (renaming.value === id)
    return (
      <li>
        <input
          class="rename"
          aria-label={w.rename}
          defaultValue={title}
          ref={(input) => input?.focus()}
          onBlur={(event) => {
            rename(id, event.currentTarget.value);
            renaming.value = '';
          }}
          onKeyDown={(event) => {
            if (event.key === 'Escape') event.currentTarget.value = title;
            if (event.key === 'Enter' || event.key === 'Escape') event.currentTarget.blur();
            event.stopPropagation();
          }}
        />
      </li>
    );
  return (
    <li class={currentId.value === id ? 'shown' : ''}>
      <button
        type="button"
        class="title"
        aria-current={currentId.value === id ? 'true' : undefined}
        onClick={() => {
          currentId.value = id;
          panel.value = undefined;
        }}
      >
        {live && <span class="live pulse" role="img" aria-label={w.answering} title={w.answering} />}
        {title}
      </button>
      <IconButton
        icon="edit"
        label={`${w.rename}: ${title}`}
        onClick={() => {
          renaming.value = id;
        }}
      />
      <IconButton
        icon="trash"
        label={`${w.remove}: ${title}`}
        onClick={() => {
          if (confirm(w.removeSure)) remove(id);
        }}
      />
    </li>
  );
}

export function Sidebar() {
  const w = words.value;
  const open = panel.value === 'conversations';
  return (
    <nav class={open ? 'sidebar open' : 'sidebar'} aria-label={w.conversations}>
      <div class="sidebar-head">
        <b class="brand">Tandem</b>
        <IconButton
          icon="close"
          label={w.close}
          class="phone"
          onClick={() => {
            panel.value = undefined;
          }}
        />
      </div>
      <button type="button" class="new-chat" onClick={newChat}>
        {w.newChat}
        <kbd>Ctrl K</kbd>
      </button>
      <input
        type="search"
        aria-label={w.search}
        placeholder={w.search}
        value={search.value}
        onInput={(event) => {
          search.value = event.currentTarget.value;
        }}
      />
      {found.value.length === 0 ? (
        <p class="faint">{search.value.trim() === '' ? w.noConversations : w.noneFound}</p>
      ) : (
        <ul>
          {found.value.map((one) => (
            <Entry key={one.id} conversation={one} />
          ))}
        </ul>
      )}
    </nav>
  );
}
