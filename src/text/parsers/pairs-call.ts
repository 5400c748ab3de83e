/**
 * A call written as a name and pairs of marked keys and values, the values bare (GLM, Qwen3-Coder):
 *
 *     GLM     get_weather⏎<arg_key>city</arg_key>⏎<arg_value>Dublin</arg_value>⏎
 *     Qwen    <function=get_weather>⏎<parameter=city>⏎Dublin⏎</parameter>⏎</function>
 *
 * A value is a string where the tool's schema says so; else JSON where it is valid JSON; else a string.
 */
import type { ToolDefinition } from '../messages.ts';
import { type OutputEvent, randomCallId, textEvents } from './events.ts';
import { JsonCall } from './json-call.ts';
import type { CallBody } from './tagged-calls.ts';

export interface PairSyntax {
  /** The name, in group 1, once it is certain; matched at the start. */
  readonly name: RegExp;
  /** One pair: key in group 1, value in group 2. Matched at the start, behind white space. */
  readonly pair: RegExp;
  /** What may follow the last pair. */
  readonly tail?: RegExp;
}

export const GLM_PAIRS: PairSyntax = {
  name: /^\s*([^\s<>{}]+)\s*(?=<arg_key>|$)/,
  pair: /^\s*<arg_key>([\s\S]*?)<\/arg_key>\s*<arg_value>([\s\S]*?)<\/arg_value>/,
};

export const QWEN_CODER_PAIRS: PairSyntax = {
  name: /^\s*<function=([^>\s]+)>/,
  pair: /^\s*<parameter=([^>]+)>\n?([\s\S]*?)\n?<\/parameter>/,
  tail: /^\s*<\/function>\s*$/,
};

export class PairsCall implements CallBody {
  private readonly syntax: PairSyntax;
  private readonly index: number;
  private readonly tools: readonly ToolDefinition[];
  private readonly newId: (index: number) => string;
  private pending = '';
  private raw = '';
  private name: string | undefined;
  private pairs = 0;
  /** The call is written as Hermes writes it: calls that were demanded are. */
  private json: JsonCall | undefined;

  constructor(
    syntax: PairSyntax,
    index: number,
    tools: readonly ToolDefinition[],
    newId: (index: number) => string = randomCallId,
  ) {
    this.syntax = syntax;
    this.index = index;
    this.tools = tools;
    this.newId = newId;
  }

  push(text: string): OutputEvent[] {
    if (this.json !== undefined) return this.json.push(text);
    this.raw += text;
    this.pending += text;
    if (this.name === undefined && this.raw.trimStart().startsWith('{')) {
      this.json = new JsonCall(this.index, this.newId);
      return this.json.push(this.raw);
    }
    return this.read(false);
  }

  end(): OutputEvent[] {
    if (this.json !== undefined) return this.json.end();
    const events = this.read(true);
    if (this.name === undefined) return textEvents(this.raw.trim());
    if (this.pairs > 0) events.push({ type: 'tool-call-arguments', index: this.index, fragment: '}' });
    return [...events, { type: 'tool-call-end', index: this.index }];
  }

  private read(last: boolean): OutputEvent[] {
    const events: OutputEvent[] = [];
    if (this.name === undefined) {
      const match = this.syntax.name.exec(this.pending);
      // A name at the very end may still grow.
      if (match === null || (!last && match[0].length === this.pending.length && !match[0].endsWith('>')))
        return events;
      this.name = match[1];
      this.pending = this.pending.slice(match[0].length);
      events.push({ type: 'tool-call-start', index: this.index, id: this.newId(this.index), name: this.name });
    }
    for (let match = this.syntax.pair.exec(this.pending); match !== null; match = this.syntax.pair.exec(this.pending)) {
      this.pending = this.pending.slice(match[0].length);
      const [, key, value] = match;
      const head = this.pairs++ === 0 ? '{' : ', ';
      const fragment = `${head}${JSON.stringify(key.trim())}: ${this.value(key.trim(), value)}`;
      events.push({ type: 'tool-call-arguments', index: this.index, fragment });
    }
    return events;
  }

  private value(key: string, value: string): string {
    const tool = this.tools.find(({ name }) => name === this.name);
    const properties = tool?.parameters?.properties as Record<string, { type?: unknown }> | undefined;
    if (properties?.[key]?.type === 'string') return JSON.stringify(value);
    try {
      return JSON.stringify(JSON.parse(value));
    } catch {
      return JSON.stringify(value);
    }
  }
}
