/**
 * `tandem chat`: a conversation that keeps its history. Ctrl-C stops the answer and keeps the chat; at the prompt it
 * leaves. Lines come from the terminal or, for scripts, from a pipe.
 */
import { createInterface, type Interface } from 'node:readline';
import type { Command } from 'commander';
import { isAbort, TandemError } from '../errors.ts';
import type { ChatMessage, GenerationResult } from '../index.ts';
import { nearest } from '../nearest.ts';
import { figures, showAnswer } from './answer.ts';
import { openAnswerer, type ServerFlags, withKey } from './answerer.ts';
import { type FamiliarFlags, withFamiliar } from './familiar.ts';
import {
  type ChatFlags,
  chatOptions,
  MODEL,
  type ModelFlags,
  type SamplingFlags,
  withChat,
  withModel,
  withSampling,
  withServer,
} from './options.ts';
import type { Answerer } from './remote.ts';
import { paint } from './terminal.ts';
import { inFlags } from './usage.ts';

interface Flags extends ModelFlags, SamplingFlags, ChatFlags, ServerFlags, FamiliarFlags {}

/** Other names that fingers know. */
const ALIASES: Readonly<Record<string, string>> = {
  '/bye': '/exit',
  '/quit': '/exit',
  '/clear': '/reset',
  '/?': '/help',
};
const COMMANDS = ['/reset', '/system', '/undo', '/stats', '/help', '/exit'];

const HELP = `  /reset          forget the conversation (the system message stays)
  /system TEXT    set the system message and start over
  /undo           take back the last question and its answer
  /stats          figures of the last answer
  /help           this list
  /exit           leave (also Ctrl-D, or Ctrl-C at an empty prompt)
  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.`;

export function addChat(cli: Command): void {
  const command = cli
    .command('chat')
    .description('a conversation; /help lists what can be typed')
    .argument('[model]', MODEL);
  withFamiliar(withKey(withServer(withChat(withSampling(withModel(command))))))
    .addHelpText(
      'after',
      `
Typed at its prompt:
${HELP}

Examples:
  tandem chat
  tandem chat model.gguf --temperature 0.6 --system "You answer in one sentence."
  printf 'What is 3 + 4?\\nWhat is 9 - 7?\\n' | tandem chat --hide-thinking`,
    )
    .action(async (model: string | undefined, flags: Flags) => {
      const interrupt = new AbortController();
      const stopLoading = () => interrupt.abort();
      process.once('SIGINT', stopLoading);
      await using answerer = await openAnswerer(flags, model, interrupt.signal);
      process.off('SIGINT', stopLoading);
      await new Conversation(answerer, flags, cli).converse();
    });
}

class Conversation {
  readonly #model: Answerer;
  readonly #flags: Flags;
  readonly #cli: Command;
  #system: string | undefined;
  #history: ChatMessage[] = [];
  #last: GenerationResult | undefined;
  #answering: AbortController | undefined;

  constructor(model: Answerer, flags: Flags, cli: Command) {
    this.#model = model;
    this.#flags = flags;
    this.#cli = cli;
    this.#system = flags.system;
  }

  async converse(): Promise<void> {
    const terminal = process.stdin.isTTY === true;
    const lines = createInterface({
      input: process.stdin,
      output: terminal ? process.stdout : undefined,
      prompt: terminal ? paint('bold', '> ') : '',
    });
    // Raw terminals deliver Ctrl-C to readline, pipes to the process.
    const interrupt = () => {
      if (this.#answering) this.#answering.abort();
      else if (lines.line === '') lines.close();
      else for (const name of ['e', 'u']) lines.write(null, { ctrl: true, name }); // forget what was typed
    };
    lines.on('SIGINT', interrupt);
    process.on('SIGINT', interrupt);
    if (terminal) process.stdout.write(`${paint('dim', `${this.#model.name} · /help lists commands`)}\n\n`);
    try {
      await this.#readLines(lines);
    } finally {
      process.off('SIGINT', interrupt);
      lines.close();
    }
  }

  async #readLines(lines: Interface): Promise<void> {
    let unfinished = '';
    let open = true; // Ctrl-D during an answer lets it end, and leaves then
    lines.once('close', () => {
      open = false;
    });
    lines.prompt();
    for await (const line of lines) {
      if (line.endsWith('\\')) {
        unfinished += `${line.slice(0, -1)}\n`;
        continue;
      }
      const text = unfinished + line;
      unfinished = '';
      if (text.startsWith('/')) {
        if (!this.#command(text.trim())) return;
      } else if (text.trim() !== '') await this.#ask(text);
      if (open) lines.prompt();
    }
    if (unfinished.trim() !== '') await this.#ask(unfinished.trimEnd());
  }

  /** False ends the chat. */
  #command(text: string): boolean {
    const [typed, ...rest] = text.split(/\s+/);
    const name = ALIASES[typed] ?? typed;
    switch (name) {
      case '/exit':
        return false;
      case '/reset':
        this.#history = [];
        say('the conversation starts over');
        break;
      case '/system':
        this.#system = rest.join(' ') || undefined;
        this.#history = [];
        say(this.#system ? 'system message set; the conversation starts over' : 'system message removed');
        break;
      case '/undo': {
        const last = this.#history.findLastIndex((message) => message.role === 'user');
        say(last < 0 ? 'there is no question to take back' : 'the last question is forgotten');
        this.#history = this.#history.slice(0, Math.max(0, last));
        break;
      }
      case '/stats':
        say(this.#last ? figures(this.#last) : 'nothing was asked yet');
        break;
      case '/help':
        say(HELP);
        break;
      default: {
        const near = nearest(name, COMMANDS);
        say(`there is no ${name}${near ? `; did you mean ${near}?` : ''}; /help lists what there is`);
      }
    }
    return true;
  }

  /** What was answered stays in the history, also half an answer; a question without any answer does not. */
  async #ask(question: string): Promise<void> {
    const asked: ChatMessage[] = [...this.#history, { role: 'user', content: question }];
    const system: ChatMessage[] = this.#system ? [{ role: 'system', content: this.#system }] : [];
    this.#answering = new AbortController();
    try {
      const generation = this.#model.chat([...system, ...asked], {
        ...chatOptions(this.#flags),
        signal: this.#answering.signal,
      });
      const result = await showAnswer(generation, { thinking: !this.#flags.hideThinking });
      this.#last = result;
      if (result.text !== '') this.#history = [...asked, { role: 'assistant', content: result.text }];
      else if (result.finishReason === 'abort') say('stopped before the answer began; the question is forgotten');
      else if (result.toolCalls.length > 0)
        say('the model asks for a tool, this chat has none; the question is forgotten');
      else say('the answer is empty; the question is forgotten');
      say(figures(result));
    } catch (error) {
      if (isAbort(error)) say('stopped before the answer began; the question is forgotten');
      else say(problem(error, this.#cli), 'red');
    } finally {
      this.#answering = undefined;
    }
  }
}

function problem(error: unknown, cli: Command): string {
  const message = inFlags(error, cli);
  const full = error instanceof TandemError && error.code === 'CONTEXT_OVERFLOW';
  return full ? `${message}; in a chat /undo and /reset make room` : message;
}

/** Words of the program, not of the model: on stderr, so that a piped chat holds answers only. */
function say(text: string, style: 'dim' | 'red' = 'dim'): void {
  process.stderr.write(`${paint(style, text, process.stderr)}\n\n`);
}
