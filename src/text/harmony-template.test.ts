/** A template with the habits of gpt-oss's: macros, namespaces, slices, a date, thoughts, arguments as objects. */
import { expect, test } from 'vitest';
import { ChatTemplate } from './chat-template.ts';
import type { ChatMessage } from './messages.ts';
import { parserFor } from './parsers/index.ts';

const SOURCE = `
{%- macro type_of(spec) -%}
  {%- if spec.type == "array" -%}{{- type_of(spec["items"]) + "[]" -}}
  {%- elif spec.enum -%}{{- '"' + spec.enum | join('" | "') + '"' -}}
  {%- else -%}{{- spec.type -}}{%- endif -%}
{%- endmacro -%}
{%- macro declare(space, tools) -%}
  {{- "namespace " + space + " {" -}}
  {%- for tool in tools -%}
    {%- set tool = tool.function -%}
    {{- tool.name + "(" -}}
    {%- for (name, spec) in tool.parameters.properties.items() -%}
      {{- name -}}{%- if name not in (tool.parameters.required or []) -%}?{%- endif -%}{{- ": " + type_of(spec) -}}
      {%- if not loop.last -%}, {% endif -%}
    {%- endfor -%}
    {{- ")" -}}
  {%- endfor -%}
  {{- "}" -}}
{%- endmacro -%}
{{- "<|start|>system<|message|>Year " + strftime_now("%Y") | length | string -}}
{%- if reasoning_effort is not defined -%}{%- set reasoning_effort = "medium" -%}{%- endif -%}
{{- "; effort " + reasoning_effort + "<|end|>" -}}
{%- if tools -%}{{- "<|start|>developer<|message|>" + declare("functions", tools) + "<|end|>" -}}{%- endif -%}
{%- set last_call = namespace(name=none) -%}
{%- for message in messages -%}
  {%- if message.role == "assistant" and "tool_calls" in message -%}
    {%- set answered = namespace(found=false) -%}
    {%- for later in messages[loop.index:] -%}
      {%- if later.role == "assistant" and "tool_calls" not in later -%}{%- set answered.found = true -%}{%- endif -%}
    {%- endfor -%}
    {%- set call = message.tool_calls[0].function -%}
    {%- if message.content and message.thinking -%}{{- raise_exception("content and thinking") -}}
    {%- elif message.thinking and not answered.found -%}
      {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" -}}
    {%- endif -%}
    {{- "<|start|>assistant to=functions." + call.name + "<|channel|>commentary json<|message|>" -}}
    {{- call.arguments | tojson + "<|call|>" -}}
    {%- set last_call.name = call.name -%}
  {%- elif message.role == "tool" -%}
    {%- if last_call.name is none -%}{{- raise_exception("a result without a call") -}}{%- endif -%}
    {{- "<|start|>functions." + last_call.name + " to=assistant<|message|>" + message.content + "<|end|>" -}}
  {%- elif message.role == "assistant" -%}
    {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" -}}
  {%- else -%}
    {{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}`;

const template = ChatTemplate.create({ source: SOURCE });
const tool = {
  name: 'find',
  parameters: {
    properties: { words: { type: 'array', items: { type: 'string' } }, in: { enum: ['a', 'b'] } },
    required: ['words'],
  },
};
const call = { id: 'c1', name: 'find', arguments: '{"words": ["x"]}' };
const asked: ChatMessage[] = [
  { role: 'user', content: 'Where?' },
  { role: 'assistant', content: '', reasoning: 'Must look.', toolCalls: [call] },
  { role: 'tool', content: 'there', toolCallId: 'c1' },
];

test('thoughts before a call stay until the answer; arguments are objects', () => {
  const head = '<|start|>system<|message|>Year 4; effort medium<|end|><|start|>user<|message|>Where?<|end|>';
  const called = '<|start|>assistant to=functions.find<|channel|>commentary json<|message|>{"words": ["x"]}<|call|>';
  const result = '<|start|>functions.find to=assistant<|message|>there<|end|>';
  const thought = '<|start|>assistant<|channel|>analysis<|message|>Must look.<|end|>';
  expect(template.render(asked)).toBe(`${head}${thought}${called}${result}<|start|>assistant`);
  const answered: ChatMessage[] = [...asked, { role: 'assistant', content: 'There.', reasoning: 'Found.' }];
  expect(template.render(answered, { addGenerationPrompt: false })).toBe(
    `${head}${called}${result}<|start|>assistant<|channel|>final<|message|>There.<|end|>`,
  );
});

test('a remark beside a call does not meet the thought that led to it', () => {
  const remarked = [asked[0], { ...asked[1], content: 'Looking.' }, asked[2]];
  expect(() => template.render(remarked)).not.toThrow();
});

test('tools are declared, variables are given', () => {
  const text = template.render([asked[0]], { tools: [tool], kwargs: { reasoning_effort: 'high' } });
  expect(text).toContain('namespace functions {find(words: string[], in?: "a" | "b")}');
  expect(text).toContain('effort high');
});

test('what the template writes, the parser reads', () => {
  const parser = parserFor({ template: template.source, newId: (index) => `id${index}` });
  const said = template.render(asked).split('<|start|>user<|message|>Where?<|end|><|start|>assistant')[1];
  const events = [...parser.push(said.split('<|start|>functions')[0]), ...parser.finish()];
  expect(events).toEqual([
    { type: 'reasoning', text: 'Must look.' },
    { type: 'tool-call-start', index: 0, id: 'id0', name: 'find' },
    { type: 'tool-call-arguments', index: 0, fragment: '{"words": ["x"]}' },
    { type: 'tool-call-end', index: 0 },
  ]);
});
