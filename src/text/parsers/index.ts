/**
 * Chooses the parser of a model's output: by the markers its chat template writes, else by its architecture.
 * To add a syntax, write its parser in a file of this folder and an entry in `TOOL_SYNTAXES`.
 */

import { TandemError } from '../../errors.ts';
import type { ToolDefinition } from '../messages.ts';
import { type CallFormat, type CallRequest, type CallSpelling, callFormatOf } from './call-format.ts';
import { CALLS_BEGIN, DeepSeekToolParser, deepSeekSpelling } from './deepseek.ts';
import { type OutputEvent, type OutputParser, randomCallId } from './events.ts';
import { CHANNEL, HARMONY_SPELLING, HarmonyParser } from './harmony.ts';
import { JsonCall } from './json-call.ts';
import { KIMI_SECTION, KIMI_SPELLING, KIMI_SYNTAX } from './kimi.ts';
import { LLAMA_SPELLING, LlamaToolParser, PYTHON_TAG } from './llama.ts';
import { GLM_PAIRS, type PairSyntax, PairsCall, QWEN_CODER_PAIRS } from './pairs-call.ts';
import { OpenedReasoning, ReasoningParser } from './reasoning.ts';
import { TaggedCallParser } from './tagged-calls.ts';

interface ToolSyntax {
  /** Texts that templates of such models hold; the first also ends reasoning that was left open. */
  readonly markers: readonly [string, ...string[]];
  readonly architecture?: RegExp;
  create(tools: readonly ToolDefinition[], newId?: (index: number) => string): OutputParser;
  /** How calls are written, for a model with this template. */
  spelling(template: string): CallSpelling;
}

const TOOL_CALL = '<tool_call>';
const TOOL_CALL_END = '</tool_call>';

/** Asked in this order: GLM and Qwen3-Coder write pairs between the markers of Hermes. */
const TOOL_SYNTAXES: readonly ToolSyntax[] = [
  {
    markers: [CALLS_BEGIN],
    architecture: /^deepseek/i,
    create: (_, newId) => new DeepSeekToolParser(newId),
    spelling: deepSeekSpelling,
  },
  {
    markers: [KIMI_SECTION],
    architecture: /^kimi/i,
    create: () => new TaggedCallParser(KIMI_SYNTAX),
    spelling: () => KIMI_SPELLING,
  },
  {
    markers: [TOOL_CALL, '<arg_key>'],
    architecture: /^glm4/i,
    create: (tools, newId) => pairs(GLM_PAIRS, tools, newId),
    spelling: () => HERMES_SPELLING,
  },
  {
    markers: [TOOL_CALL, '<function='],
    create: (tools, newId) => pairs(QWEN_CODER_PAIRS, tools, newId),
    spelling: () => HERMES_SPELLING,
  },
  {
    markers: [TOOL_CALL],
    architecture: /^qwen3/i,
    create: (_, newId) =>
      new TaggedCallParser({
        begin: [TOOL_CALL],
        end: TOOL_CALL_END,
        body: (index) => new JsonCall(index, newId),
      }),
    spelling: () => HERMES_SPELLING,
  },
  {
    markers: [PYTHON_TAG],
    architecture: /^llama$/i,
    create: (_, newId) => new LlamaToolParser(newId),
    spelling: () => LLAMA_SPELLING,
  },
];

const HERMES_SPELLING: CallSpelling = {
  before: '',
  begin: (name) => `${TOOL_CALL}\n{"name": ${JSON.stringify(name)}, "arguments": `,
  end: `}\n${TOOL_CALL_END}`,
  after: '',
  markers: [TOOL_CALL, TOOL_CALL_END],
};

function pairs(syntax: PairSyntax, tools: readonly ToolDefinition[], newId?: (index: number) => string): OutputParser {
  return new TaggedCallParser({
    begin: [TOOL_CALL],
    end: TOOL_CALL_END,
    body: (index) => new PairsCall(syntax, index, tools, newId),
  });
}

export interface ParserChoice {
  /** Source of the chat template, where there is one. */
  readonly template?: string;
  /** Name of the architecture (`deepseek_v3`, `deepseek2` …), asked where there is no template. */
  readonly architecture?: string;
  /** The prompt ended inside `<think>` (`opensThinking`). */
  readonly startInside?: boolean;
  /** True once thinking was ended for the model. */
  readonly cut?: () => boolean;
  /** `none` leaves `<think>` in the text, one that the prompt opened too. Default `separate`. */
  readonly reasoning?: 'separate' | 'none';
  /** `none` leaves tool calls in the text. Default `separate`. */
  readonly calls?: 'separate' | 'none';
  /** The tools that were offered: their schemas say which bare values are strings. */
  readonly tools?: readonly ToolDefinition[];
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
  if (template.includes(CHANNEL)) {
    const final = `${CHANNEL}final<|message|>`;
    return { inside: true, close: final, forced: `<|end|><|start|>assistant${final}` };
  }
  if (!inside && !template.includes('</think>')) return undefined;
  return { inside, open: '<think>', close: '</think>', forced: '\n</think>\n\n' };
}

/** A parser for one answer. */
export function parserFor({
  template,
  architecture = '',
  startInside = false,
  cut,
  reasoning = 'separate',
  calls = 'separate',
  tools = [],
  newId,
}: ParserChoice): OutputParser {
  if (speaksHarmony(template, architecture))
    return new ParserChain([new HarmonyParser({ newId: newId ?? randomCallId, reasoning, tools: calls })]);
  const syntax = syntaxOf(template, architecture);
  const stages: OutputParser[] = [];
  if (reasoning === 'separate') {
    const interrupts = syntax === undefined ? [] : [syntax.markers[0]];
    stages.push(new ReasoningParser({ startInside, interrupts, cut }));
  } else if (startInside) stages.push(new OpenedReasoning());
  if (syntax !== undefined && calls === 'separate') stages.push(syntax.create(tools, newId));
  return new ParserChain(stages);
}

/** gpt-oss: reasoning, text and calls are channels of one syntax. */
function speaksHarmony(template: string | undefined, architecture: string): boolean {
  return template === undefined ? /^gpt[-_]?oss/i.test(architecture) : template.includes(CHANNEL);
}

function syntaxOf(template: string | undefined, architecture: string): ToolSyntax | undefined {
  return TOOL_SYNTAXES.find(({ markers, architecture: pattern }) =>
    template === undefined ? pattern?.test(architecture) : markers.every((marker) => template.includes(marker)),
  );
}

/** The form of calls that are demanded. REQUEST_INVALID where the model knows no syntax for calls. */
export function callFormat(template: string, architecture: string, request: CallRequest): CallFormat {
  if (speaksHarmony(template, architecture)) return callFormatOf(HARMONY_SPELLING, request);
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
