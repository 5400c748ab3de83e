/**
 * `tandem chat`: a conversation that keeps its history. Ctrl-C stops the answer and keeps the chat; at the prompt it
 * leaves. Lines come from the terminal or, for scripts, from a pipe.
 */
import { createInterface, type Interface } from 'node:readline';
import type { Command } from 'commander';
import { isAbort } from '../errors.ts';
import type { ChatMessage, Engine, GenerationResult } from '../index.ts';
import { figures, showAnswer } from './answer.ts';
import { loadModel } from './load-model.ts';
import {
  loadOptions,
  type ModelFlags,
  type SamplingFlags,
  samplingOptions,
  withModel,
  withSampling,
} from './options.ts';
import { paint } from './terminal.ts';

interface Flags extends ModelFlags, SamplingFlags {
  system?: string;
  thinking: boolean;
}

const HELP = `  /reset          forget the conversation (the system message stays)
  /system TEXT    set the system message and start over
  /undo           take back the last question and its answer
  /stats          figures of the last answer
  /help           this list
  /exit           leave (also Ctrl-D, or Ctrl-C at the prompt)
  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.`;

export function addChat(cli: Command): void {
  const command = cli.command('chat').description('a conversation; /help lists what can be typed');
  withSampling(withModel(command))
    .option('-s, --system <text>', 'system message')
    .option('--no-thinking', 'do not print the reasoning')
    .action(async (flags: Flags) => {
      const interrupt = new AbortController();
      const stopLoading = () => interrupt.abort();
      process.once('SIGINT', stopLoading);
      await using engine = await loadModel(flags.model, loadOptions(flags), interrupt.signal);
      process.off('SIGINT', stopLoading);
      await new Conversation(engine, flags).converse();
    });
}

class Conversation {
  readonly #engine: Engine;
  readonly #flags: Flags;
  #system: string | undefined;
  #history: ChatMessage[] = [];
  #last: GenerationResult | undefined;
  #answering: AbortController | undefined;

  constructor(engine: Engine, flags: Flags) {
    this.#engine = engine;
    this.#flags = flags;
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
    const interrupt = () => (this.#answering ? this.#answering.abort() : lines.close());
    lines.on('SIGINT', interrupt);
    process.on('SIGINT', interrupt);
    if (terminal) process.stdout.write(`${paint('dim', `${this.#engine.info.model} · /help lists commands`)}\n\n`);
    try {
      await this.#readLines(lines);
    } finally {
      process.off('SIGINT', interrupt);
      lines.close();
    }
  }

  async #readLines(lines: Interface): Promise<void> {
    let unfinished = '';
    lines.prompt();
    for await (const line of lines) {
      if (line.endsWith('\\')) {
        unfinished += `${line.slice(0, -1)}\n`;
        continue;
      }
      const text = unfinished + line;
      unfinished = '';
      if (text.trim() === '/exit') return;
      if (text.trimStart().startsWith('/')) this.#command(text.trim());
      else if (text.trim() !== '') await this.#ask(text);
      lines.prompt();
    }
  }

  #command(text: string): void {
    const [name, ...rest] = text.split(' ');
    switch (name) {
      case '/reset':
        this.#history = [];
        say('the conversation starts over');
        break;
      case '/system':
        this.#system = rest.join(' ') || undefined;
        this.#history = [];
        say(this.#system ? 'system message set; the conversation starts over' : 'system message removed');
        break;
      case '/undo':
        this.#history = this.#history.slice(
          0,
          this.#history.findLastIndex((message) => message.role === 'user'),
        );
        say('the last question is forgotten');
        break;
      case '/stats':
        say(this.#last ? figures(this.#last) : 'nothing was asked yet');
        break;
      case '/help':
        say(HELP);
        break;
      default:
        say(`there is no ${name}; /help lists what there is`);
    }
  }

  /** What was answered stays in the history, also half an answer; a question without any answer does not. */
  async #ask(question: string): Promise<void> {
    const asked: ChatMessage[] = [...this.#history, { role: 'user', content: question }];
    const system: ChatMessage[] = this.#system ? [{ role: 'system', content: this.#system }] : [];
    this.#answering = new AbortController();
    try {
      const generation = this.#engine.chat([...system, ...asked], {
        ...samplingOptions(this.#flags),
        signal: this.#answering.signal,
      });
      const result = await showAnswer(generation, { thinking: this.#flags.thinking });
      this.#last = result;
      if (result.text !== '') this.#history = [...asked, { role: 'assistant', content: result.text }];
      else if (result.finishReason === 'abort') say('stopped before the answer began; the question is forgotten');
      say(figures(result));
    } catch (error) {
      if (isAbort(error)) say('stopped before the answer began; the question is forgotten');
      else say(error instanceof Error ? error.message : String(error), 'red');
    } finally {
      this.#answering = undefined;
    }
  }
}

/** Words of the program, not of the model: on stderr, so that a piped chat holds answers only. */
function say(text: string, style: 'dim' | 'red' = 'dim'): void {
  process.stderr.write(`${paint(style, text, process.stderr)}\n\n`);
}
