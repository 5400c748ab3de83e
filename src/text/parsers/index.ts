/**
 * Chooses the parser of a model's output: by the markers its chat template writes, else by its architecture.
 * To add a syntax, write its parser in a file of this folder and a line in `TOOL_SYNTAXES`.
 */
import { CALLS_BEGIN, DeepSeekToolParser } from './deepseek.ts';
import { type OutputEvent, type OutputParser, randomCallId } from './events.ts';
import { CHANNEL, HarmonyParser } from './harmony.ts';
import { ReasoningParser } from './reasoning.ts';

interface ToolSyntax {
  /** Text that templates of such models hold; it also ends reasoning that was left open. */
  readonly marker: string;
  readonly architecture: RegExp;
  create(newId?: (index: number) => string): OutputParser;
}

const TOOL_SYNTAXES: readonly ToolSyntax[] = [
  { marker: CALLS_BEGIN, architecture: /^deepseek/i, create: (newId) => new DeepSeekToolParser(newId) },
];

/** gpt-oss: reasoning, text and calls are channels of one syntax. */
const HARMONY = { marker: CHANNEL, architecture: /^gpt[-_]?oss/i };

export interface ParserChoice {
  /** Source of the chat template, where there is one. */
  readonly template?: string;
  /** Name of the architecture (`deepseek_v3`, `deepseek2` …), asked where there is no template. */
  readonly architecture?: string;
  /** The prompt ended inside `<think>` (`opensThinking`). */
  readonly startInside?: boolean;
  /** `none` leaves `<think>` in the text. Default `separate`. */
  readonly reasoning?: 'separate' | 'none';
  /** `none` leaves tool calls in the text. Default `separate`. */
  readonly tools?: 'separate' | 'none';
  /** Makes ids of tool calls; random by default. */
  readonly newId?: (index: number) => string;
}

/** A parser for one answer. */
export function parserFor({
  template,
  architecture = '',
  startInside = false,
  reasoning = 'separate',
  tools = 'separate',
  newId,
}: ParserChoice): OutputParser {
  const speaks = ({ marker, architecture: pattern }: Pick<ToolSyntax, 'marker' | 'architecture'>) =>
    template === undefined ? pattern.test(architecture) : template.includes(marker);
  if (speaks(HARMONY)) {
    const ids = newId ?? randomCallId;
    return new ParserChain([new HarmonyParser({ newId: ids, reasoning, tools })]);
  }
  const syntax = TOOL_SYNTAXES.find(speaks);
  const stages: OutputParser[] = [];
  if (reasoning === 'separate') {
    stages.push(new ReasoningParser({ startInside, interrupts: syntax === undefined ? [] : [syntax.marker] }));
  }
  if (syntax !== undefined && tools === 'separate') stages.push(syntax.create(newId));
  return new ParserChain(stages);
}

/** Text events of one stage are the input of the next; other events pass. */
class ParserChain implements OutputParser {
  private readonly stages: readonly OutputParser[];

  constructor(stages: readonly OutputParser[]) {
    this.stages = stages;
  }

  push(text: string): OutputEvent[] {
    return text === '' ? [] : this.through(0, [{ type: 'text', text }]);
  }

  finish(): OutputEvent[] {
    return this.stages.flatMap((stage, at) => this.through(at + 1, stage.finish()));
  }

  private through(from: number, events: OutputEvent[]): OutputEvent[] {
    let current = events;
    for (const stage of this.stages.slice(from)) {
      current = current.flatMap((event) => (event.type === 'text' ? stage.push(event.text) : [event]));
    }
    return current;
  }
}
