/** What a user calls a model → a path: one that is there, a name that was pulled, or one that may be pulled now. */
import { existsSync } from 'node:fs';
import { TandemError } from '../errors.ts';
import {
  chooseVariant,
  findModel,
  formatReference,
  hubSettings,
  localModel,
  type ModelReference,
  parseReference,
} from '../hub/index.ts';
import { canAsk, confirm } from './confirm.ts';
import { modelPath } from './options.ts';
import { pullShown } from './pull.ts';
import { formatBytes } from './terminal.ts';

/** The path of the model that flags and argument name; of the one that ships where they name none. */
export function localPath(flags: { readonly model?: string }, argument?: string): Promise<string> {
  return resolveModel(modelPath(flags, argument));
}

/** FILE_NOT_FOUND for a name that is not here. At a terminal it is offered to download it. */
async function resolveModel(name: string): Promise<string> {
  if (existsSync(name)) return name;
  const reference = parseReference(name);
  if (reference === undefined) {
    if (isElsewhere(name)) throw elsewhere(name);
    return name; // whoever opens it says what is wrong with it
  }
  const settings = await hubSettings();
  try {
    return await localModel(name, settings.cache);
  } catch (error) {
    const absent = error instanceof TandemError && error.code === 'FILE_NOT_FOUND';
    if (!absent || settings.offline || !canAsk()) throw error;
    const path = await offer(reference);
    if (path === undefined) throw error;
    return path;
  }
}

async function offer(reference: ModelReference): Promise<string | undefined> {
  const settings = await hubSettings();
  const model = await findModel(reference, settings);
  const { name: quant, files } = chooseVariant(model.repository, model.variants, reference.quant);
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const full = { ...reference, quant };
  const question = `${formatReference(full)} is not here. Download ${formatBytes(bytes)}?`;
  if (!(await confirm(question, 'the download', 'tandem pull'))) return undefined;
  return (await pullShown(full, settings)).path;
}

/** An address or `model:tag`: names by which other programs download. */
function isElsewhere(name: string): boolean {
  return /^\w+:\/\//.test(name) || (/^\w[\w.-]*[/:][\w.-]+$/.test(name) && !name.endsWith('.gguf'));
}

function elsewhere(name: string): TandemError {
  return new TandemError('FILE_NOT_FOUND', {
    room: 'cli',
    rule: 'a model is a local file or folder, or organization/model of a hub',
    given: `there is no ${name} here`,
    fix: 'give its path, or a name such as Qwen/Qwen3-0.6B',
  });
}
