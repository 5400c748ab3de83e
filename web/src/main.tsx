/** The chat page of `tandem serve`. It talks to the server it came from and to nobody else. */
import { render } from 'preact';
import { App } from './app.tsx';
import { loadConversations } from './conversations.ts';
import { watchKeys } from './keys.ts';
import { watchModels } from './models.ts';
import './style.css';
import './theme.ts';

watchKeys();
watchModels();
await loadConversations();
render(<App />, document.getElementById('app')!);
