/** `tandem serve [MODEL …]`: an OpenAI, Anthropic, Ollama and llama.cpp server until Ctrl-C or SIGTERM. */
import * as fs from 'node:fs';
import { type Command, Option } from 'commander';
import { TandemError } from '../errors.ts';
import { systemReason } from '../formats/file-source.ts';
import { DEFAULT_SERVER_OPTIONS } from '../server/context.ts';
import { type ServedModel, startServer } from '../server/start.ts';
import { type FamiliarFlags, familiarOptions, familiarRules, withFamiliar } from './familiar.ts';
import { localPath } from './model-name.ts';
import { count, duration, loadOptions, MODEL, type ModelFlags, memorySize, positive, withLoading } from './options.ts';
import { ProgressBar, paint } from './terminal.ts';

interface Flags extends Omit<ModelFlags, 'model'>, FamiliarFlags {
  model?: string[];
  modelPath?: string;
  ggufPath?: string;
  name?: string;
  alias?: string[];
  host: string;
  port: number;
  apiKey?: string[];
  apiKeyFile?: string;
  cors?: string[];
  allowedHost?: string[];
  bodyLimit?: number;
  maxNewTokens?: number;
  maxQueue: number;
  parallel?: number;
  heartbeat: number;
  heartbeatJson?: boolean;
  reasoningFormat: 'separate' | 'none';
  prefixCache?: string;
  prefixCacheSize?: number;
  maxLoaded?: number;
  idleUnload: number;
  lazy?: boolean;
  drain: number;
  tlsCert?: string;
  tlsKey?: string;
  logLevel: string;
}

const list = (value: string, all: string[] = []) => [...all, ...value.split(',').filter((item) => item !== '')];

export function addServe(cli: Command, version: string): void {
  const { host, port, maxQueue, heartbeatMs, drainMs } = DEFAULT_SERVER_OPTIONS;
  const command = cli
    .command('serve')
    .description('answer OpenAI, Anthropic, Ollama and llama.cpp clients, and serve the chat page')
    .argument('[models...]', `${MODEL}; as NAME=PATH under that name; further ones are loaded when asked for`)
    .option('-m, --model <path>', 'the same; may be repeated', (path, all: string[] = []) => [...all, path]);
  withFamiliar(withLoading(command))
    .addOption(
      new Option(
        '--model-path <dir>',
        'folder with tokenizer and config (KTransformers); beside --gguf-path the file is served',
      ).hideHelp(),
    )
    .addOption(new Option('--gguf-path <path>', 'GGUF file, or the folder it is in (KTransformers)').hideHelp())
    .option('--host <address>', '0.0.0.0 lets other machines in', host)
    .option('--port <n>', 'port; 0 takes a free one', count, port)
    .option('--name <name>', "public name of the model (default: the file's)")
    .option('--alias <name>', 'further names clients may use, comma-separated or repeated', list)
    .option('--api-key <key>', 'keys that clients must send (or TANDEM_API_KEY), comma-separated or repeated', list)
    .option('--api-key-file <file>', 'such keys, one a line')
    .option('--cors <origin>', 'origins browsers may call from; * for all (default: localhost)', list)
    .option('--allowed-host <name>', 'host names answered beside addresses and localhost; * for all', list)
    .option('--max-new-tokens <n>', 'longest answer where a client names none', positive)
    .option('--parallel <n>', 'requests computed at once; more wait', positive)
    .option('--max-queue <n>', 'requests that may wait; more get 429', count, maxQueue)
    .option('--body-limit <size>', 'largest request, e.g. 64MB', memorySize)
    .option('--heartbeat <ms>', 'sign of life of silent streams', positive, heartbeatMs)
    .option('--heartbeat-json', 'keep answers that are not streamed alive with white space')
    .addOption(
      new Option('--reasoning-format <how>', 'thinking as reasoning_content, or none: left in the text')
        .choices(['separate', 'none'])
        .default('separate'),
    )
    .option('--prefix-cache <dir>', 'keep what was computed of prompts on disk, for after a restart')
    .option('--prefix-cache-size <size>', 'most bytes of that folder, e.g. 8GB', memorySize)
    .option('--max-loaded <n>', 'most models in memory at once (default: as many as fit)', positive)
    .option('--idle-unload <time>', 'free a model after so long without requests, e.g. 90s, 5m; 0 never', duration, 0)
    .option('--lazy', 'load with the first request instead of now')
    .option('--drain <ms>', 'time running answers get after SIGTERM', count, drainMs)
    .option('--tls-cert <file>', 'PEM certificate; serves https')
    .option('--tls-key <file>', 'PEM key')
    .addOption(
      new Option('--log-level <level>', 'of the JSON lines on stderr')
        .choices(['silent', 'error', 'warn', 'info', 'debug'])
        .default('warn'),
    )
    .addHelpText(
      'after',
      `
Examples:
  tandem serve                                           the model that ships, on http://localhost:${port}
  tandem serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
  tandem serve big.gguf small=./Qwen3-30B-A3B --idle-unload 10m
  tandem serve --model_path DIR --gguf_path DIR --port 10002 --cpu_infer 65 --max_new_tokens 8192`,
    )
    .action((models: string[], flags: Flags) => serve(models, flags, version));
}

async function serve(given: readonly string[], flags: Flags, version: string): Promise<void> {
  const models = await servedModels(given, flags);
  const bar = new ProgressBar('loading');
  const keys = apiKeys(flags);
  if ((flags.tlsCert === undefined) !== (flags.tlsKey === undefined))
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'TLS takes a certificate and a key',
      given: `only --tls-${flags.tlsCert === undefined ? 'key' : 'cert'} was given`,
      fix: 'give both --tls-cert and --tls-key',
    });
  let loading = true;
  const server = await startServer({
    models,
    maxLoaded: flags.maxLoaded,
    memory: flags.memory,
    version,
    host: flags.host,
    port: flags.port,
    apiKeys: keys,
    corsOrigins: flags.cors ?? DEFAULT_SERVER_OPTIONS.corsOrigins,
    allowedHosts: flags.allowedHost ?? [],
    bodyBytes: flags.bodyLimit ?? DEFAULT_SERVER_OPTIONS.bodyBytes,
    heartbeatMs: flags.heartbeat,
    heartbeatJson: flags.heartbeatJson === true,
    maxTokens: flags.maxNewTokens,
    reasoningFormat: flags.reasoningFormat,
    maxQueue: flags.maxQueue,
    drainMs: flags.drain,
    tls: flags.tlsCert && flags.tlsKey ? { cert: flags.tlsCert, key: flags.tlsKey } : undefined,
    idleMs: flags.idleUnload,
    lazy: flags.lazy,
    logLevel: flags.logLevel,
    onProgress: (done, total) => loading && bar.update(done, total),
  });
  const say = (text: string) => process.stderr.write(`${text}\n`);
  const names = server.models.list().map(({ id }) => id);
  say(`${paint('bold', server.url, process.stderr)}  ${names.join(', ')}  (chat page at /, API reference at /docs)`);
  if (flags.host !== '127.0.0.1' && flags.host !== 'localhost' && keys.length === 0)
    say(paint('yellow', 'anybody who reaches this port can use the model: --api-key KEY asks for one', process.stderr));
  const stopped = new Promise<void>((resolve) => {
    let asked = 0;
    const stop = () => {
      if (++asked > 1) process.exit(130);
      say('finishing running answers; again to end at once');
      resolve();
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
  });
  try {
    const ready = server.ready
      .finally(() => {
        loading = false;
        bar.end();
      })
      .then(() => flags.lazy || say('ready'));
    await Promise.race([ready, stopped]);
    await stopped;
  } finally {
    await server.close();
  }
}

async function servedModels(given: readonly string[], flags: Flags): Promise<ServedModel[]> {
  const named = [...given, ...(flags.model ?? [])];
  const { name, alias, modelPath: folder, ggufPath: gguf } = flags;
  // The old world names a folder of the tokenizer and one of the weights; a GGUF file holds both.
  const old = gguf === undefined ? folder : firstGguf(gguf);
  if (old !== undefined) named.push(old);
  if (named.length > 1 && (name !== undefined || alias !== undefined))
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: '--name and --alias are of one model',
      given: `${named.length} models`,
      fix: 'give them as NAME=PATH',
    });
  const load = {
    ...loadOptions(flags as ModelFlags),
    ...familiarOptions(flags),
    maxSequences: flags.parallel,
    prefixCache:
      flags.prefixCache === undefined ? true : { directory: flags.prefixCache, maxBytes: flags.prefixCacheSize },
  };
  const models: (string | undefined)[] = named.length === 0 ? [undefined] : [...new Set(named)];
  return Promise.all(
    models.map(async (text) => {
      const [, label, path = text] =
        (text !== undefined && !fs.existsSync(text) && /^([^=/.][^=]*)=(.+)$/s.exec(text)) || [];
      const local = await localPath({}, path);
      const rules = await familiarRules(flags, local);
      return { path: local, name: label ?? name, aliases: alias, load: { ...load, rules } };
    }),
  );
}

/** Never more in a message than where they come from. */
function apiKeys({ apiKey, apiKeyFile }: Flags): string[] {
  if (apiKey?.length === 0)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: '--api-key names a key',
      given: 'it is empty (an unset shell variable?)',
      fix: 'leave it out to let everybody in',
    });
  const keys = [...(apiKey ?? []), ...(apiKeyFile === undefined ? [] : keysIn(apiKeyFile))];
  return keys.length > 0 ? keys : list(process.env.TANDEM_API_KEY ?? '');
}

function keysIn(path: string): string[] {
  const wrong = (given: string) =>
    new TandemError('FILE_NOT_FOUND', {
      room: 'cli',
      rule: '--api-key-file names a file with a key in each line',
      given,
      fix: 'write keys into it, or leave it out',
    });
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    throw wrong(`${path}: ${systemReason(error)}`);
  }
  const keys = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (keys.length === 0) throw wrong(`${path} holds none`); // else everybody would be let in
  return keys;
}

function firstGguf(path: string): string {
  if (!fs.existsSync(path) || !fs.statSync(path).isDirectory()) return path;
  const files = fs
    .readdirSync(path)
    .filter((name) => name.endsWith('.gguf'))
    .sort();
  const first = files.filter((name) => !/-\d{5}-of-\d{5}\.gguf$/.test(name) || /-00001-of-/.test(name));
  if (first.length === 1) return `${path}/${first[0]}`;
  throw new TandemError('FILE_NOT_FOUND', {
    room: 'cli',
    rule: '--gguf-path names a GGUF file, or a folder with one model',
    given: `${path} holds ${first.length === 0 ? 'none' : first.join(', ')}`,
    fix: 'name the file (the first one of a split set)',
  });
}
