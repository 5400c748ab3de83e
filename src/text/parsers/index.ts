/**
 * Chooses the parser of a model's output: by the markers its chat template writes, else by its architecture.
 * To add a syntax, write its parser in a file of this folder and a line in `TOOL_SYNTAXES`.
 */

import { TandemError } from '../../errors.ts';
import { type CallFormat, type CallRequest, type CallSpelling, callFormatOf } from './call-format.ts';
import { CALLS_BEGIN, DeepSeekToolParser, deepSeekSpelling } from './deepseek.ts';
import type { OutputEvent, OutputParser } from './events.ts';
import { ReasoningParser } from './reasoning.ts';

interface ToolSyntax {
  /** Text that templates of such models hold; it also ends reasoning that was left open. */
  readonly marker: string;
  readonly architecture: RegExp;
  create(newId?: (index: number) => string): OutputParser;
  /** How calls are written, for a model with this template. */
  spelling(template: string): CallSpelling;
}

const TOOL_SYNTAXES: readonly ToolSyntax[] = [
  {
    marker: CALLS_BEGIN,
    architecture: /^deepseek/i,
    create: (newId) => new DeepSeekToolParser(newId),
    spelling: deepSeekSpelling,
  },
];

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

/** How thinking begins and ends in a model's output. */
export interface ThinkingGate {
  /** The prompt ended inside. */
  readonly inside: boolean;
  /** The token that opens it where the model does so itself. */
  readonly open?: string;
  readonly close: string;
  /** What is written to end it early. */
  readonly forced: string;
}

/** Undefined where the template knows no thinking and the prompt did not open it. */
export function thinkingGate(template: string, inside: boolean): ThinkingGate | undefined {
  if (!inside && !template.includes('</think>')) return undefined;
  return { inside, open: '<think>', close: '</think>', forced: '\n</think>\n\n' };
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
  const syntax = syntaxOf(template, architecture);
  const stages: OutputParser[] = [];
  if (reasoning === 'separate') {
    stages.push(new ReasoningParser({ startInside, interrupts: syntax === undefined ? [] : [syntax.marker] }));
  }
  if (syntax !== undefined && tools === 'separate') stages.push(syntax.create(newId));
  return new ParserChain(stages);
}

function syntaxOf(template: string | undefined, architecture: string): ToolSyntax | undefined {
  return TOOL_SYNTAXES.find(({ marker, architecture: pattern }) =>
    template === undefined ? pattern.test(architecture) : template.includes(marker),
  );
}

/** The form of calls that are demanded. REQUEST_INVALID where the model knows no syntax for calls. */
export function callFormat(template: string, architecture: string, request: CallRequest): CallFormat {
  const syntax = syntaxOf(template, architecture);
  if (syntax !== undefined) return callFormatOf(syntax.spelling(template), request);
  throw new TandemError('REQUEST_INVALID', {
    room: 'text',
    rule: 'a tool call can be demanded of a model that knows how to write one',
    given: `the chat template of this ${architecture} shows no syntax for calls`,
    fix: 'leave toolChoice at auto, or ask for JSON of a schema',
  });
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
