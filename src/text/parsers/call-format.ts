/** How a model's own syntax writes tool calls, as a structure a grammar compiler understands: for calls that are demanded. */
import { TandemError } from '../../errors.ts';
import type { ToolDefinition } from '../messages.ts';

/** The calls that may be written. */
export interface CallRequest {
  readonly tools: readonly ToolDefinition[];
  readonly toolChoice: 'required' | { readonly name: string };
}

/** Text, JSON of a schema, and their combinations; the compiler's own words. */
export type CallStructure =
  | { type: 'const_string'; value: string }
  | { type: 'json_schema'; json_schema: boolean | Record<string, unknown> }
  | { type: 'sequence'; elements: CallStructure[] }
  | { type: 'tag'; begin: string; content: CallStructure; end: string }
  | { type: 'or'; elements: CallTag[] };
export type CallTag = Extract<CallStructure, { type: 'tag' }>;

export interface CallFormat {
  readonly type: 'calls';
  readonly structure: CallStructure;
  /** Control tokens that count as their text in it. */
  readonly markers: readonly string[];
  /** The calls come at once: the model does not think before. */
  readonly first: boolean;
}

/** What a syntax adds: the text around all calls, and around one. */
export interface CallSpelling {
  readonly before: string;
  readonly begin: (name: string) => string;
  readonly end: string;
  readonly after: string;
  readonly markers: readonly string[];
  readonly first?: boolean;
}

/** One call of one of the tools. REQUEST_INVALID where the named tool is none of the tools. */
export function callFormatOf(spelling: CallSpelling, { tools, toolChoice }: CallRequest): CallFormat {
  const wanted = toolChoice === 'required' ? tools : tools.filter(({ name }) => name === toolChoice.name);
  if (wanted.length === 0)
    throw new TandemError('REQUEST_INVALID', {
      room: 'text',
      rule: 'a tool that is demanded is one of the tools',
      given: `${JSON.stringify(toolChoice)} of ${tools.map(({ name }) => name).join(', ') || 'none'}`,
      fix: 'name one of them',
    });
  const tags = wanted.map(
    ({ name, parameters }): CallTag => ({
      type: 'tag',
      begin: spelling.begin(name),
      content: { type: 'json_schema', json_schema: { type: 'object', ...parameters } },
      end: spelling.end,
    }),
  );
  const constant = (value: string): CallStructure[] => (value === '' ? [] : [{ type: 'const_string', value }]);
  return {
    type: 'calls',
    structure: {
      type: 'sequence',
      elements: [...constant(spelling.before), { type: 'or', elements: tags }, ...constant(spelling.after)],
    },
    markers: spelling.markers,
    first: spelling.first === true,
  };
}
