/** `tandem pull REPO[:QUANT]`: a model of the hub comes into the cache, or what is missing of it. */
import type { Command } from 'commander';
import {
  findCached,
  type HubSettings,
  hubSettings,
  type ModelReference,
  type Pulled,
  pull,
  toReference,
} from '../hub/index.ts';
import { DownloadBar } from './download-bar.ts';
import { positive } from './options.ts';
import { formatBytes, paint } from './terminal.ts';

interface Flags {
  offline?: boolean;
  connections?: number;
  json?: boolean;
}

export function addPull(cli: Command): void {
  cli
    .command('pull')
    .description('download a model, or what is missing of it')
    .argument('<model>', 'organization/model, organization/model:QUANT, either with @REVISION')
    .option('--connections <n>', 'requests at once', positive, 8)
    .option('--offline', 'ask nobody: only say whether it is here (also HF_HUB_OFFLINE=1)')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Ctrl-C, a broken connection or a dead machine lose nothing: the same command goes on where it was. Every file is checked
against the hub's checksum. The cache is that of Hugging Face's tools (HF_HOME, HF_HUB_CACHE); HF_ENDPOINT names another
hub, HF_TOKEN is for private and gated models.

Examples:
  tandem pull Qwen/Qwen3-0.6B                        a safetensors model
  tandem pull unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL    one quantization of GGUF files; without one: which there are
  tandem run -m unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL "Why is the sky blue?"`,
    )
    .action(async (name: string, flags: Flags) => {
      const reference = toReference(name);
      const settings = await hubSettings({ offline: flags.offline });
      const pulled = settings.offline
        ? await there(reference, settings)
        : await pullShown(reference, settings, { connections: flags.connections });
      if (flags.json) process.stdout.write(`${JSON.stringify(pulled)}\n`);
      else process.stdout.write(`${pulled.path}\n`);
    });
}

async function there(reference: ModelReference, { cache }: HubSettings): Promise<Pulled> {
  const { name, path, commit, bytes } = await findCached(reference, cache);
  return { name, path, commit, bytes, fetched: 0 };
}

/** Pulls with a bar and words on stderr. Ctrl-C and SIGTERM stop it with ABORTED. */
export async function pullShown(
  reference: ModelReference,
  settings: HubSettings,
  options: { connections?: number } = {},
): Promise<Pulled> {
  const bar = new DownloadBar();
  const interrupt = new AbortController();
  const stop = () => interrupt.abort();
  for (const signal of SIGNALS) process.on(signal, stop);
  const say = (text: string, style: 'dim' | 'yellow' = 'dim') => {
    bar.clear();
    process.stderr.write(`${paint(style, text, process.stderr)}\n`);
  };
  try {
    const pulled = await pull(reference, settings, {
      ...options,
      signal: interrupt.signal,
      onStart: ({ name, files, bytes, missing }) => {
        const rest = missing === bytes ? '' : missing === 0 ? ', all here' : `, ${formatBytes(missing)} missing`;
        say(`${name}: ${files} file${files === 1 ? '' : 's'}, ${formatBytes(bytes)}${rest}`);
      },
      onProgress: (progress) => bar.update(progress),
      onNotice: (text) => say(text, 'yellow'),
    });
    if (pulled.fetched > 0) say(`${formatBytes(pulled.fetched)} came, every file has the checksum it should have`);
    return pulled;
  } finally {
    bar.clear();
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
