/** The page: conversations at the left, the shown one in the middle, experts and settings at the right. */
import { Composer } from './composer.tsx';
import { ConversationView } from './conversation-view.tsx';
import { ExpertsPanel } from './experts-panel.tsx';
import { KeyDialog } from './key-dialog.tsx';
import { panel } from './panel.ts';
import { SettingsPanel } from './settings-panel.tsx';
import { Sidebar } from './sidebar.tsx';
import { TopBar } from './top-bar.tsx';

export function App() {
  return (
    <div class="page">
      <Sidebar />
      <main>
        <TopBar />
        <ExpertsPanel />
        <ConversationView />
        <Composer />
      </main>
      {panel.value === 'settings' && <SettingsPanel />}
      <KeyDialog />
    </div>
  );
}
