/** Tools as OpenAI and Ollama write them: functions with a schema. Other kinds (web search of hosted services) are skipped, not refused. */
import { z } from '@hono/zod-openapi';
import type { ToolDefinition } from '../../text/messages.ts';
import { defined } from '../defined.ts';

const functionTool = z.looseObject({
  type: z.string().nullish(),
  function: z
    .looseObject({
      name: z.string().min(1).max(256),
      description: z.string().nullish(),
      parameters: z.record(z.string(), z.unknown()).nullish(),
    })
    .nullish(),
});

export const functionTools = z.array(functionTool).max(4096).nullish();

export function toolDefinitions(tools: z.output<typeof functionTools>): ToolDefinition[] {
  return (tools ?? []).flatMap(({ type, function: definition }) => {
    if (!definition || (type ?? 'function') !== 'function') return [];
    const { name, description, parameters } = definition;
    return [{ name, ...defined({ description, parameters }) }];
  });
}
