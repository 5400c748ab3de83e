/** What all dialects ask of tools, once they are told in our words. */
import type { ChatOptions } from '../engine/generate-options.ts';
import { TandemError } from '../errors.ts';
import type { ToolDefinition } from '../text/messages.ts';

/** The engine's options. REQUEST_INVALID where a call is demanded of no tool, or of one that is not there. */
export function toolOptions(
  tools: readonly ToolDefinition[],
  choice: ChatOptions['toolChoice'] | undefined,
): Pick<ChatOptions, 'tools' | 'toolChoice'> {
  const named = typeof choice === 'object' ? choice.name : undefined;
  const demanded = named !== undefined || choice === 'required';
  if (demanded && (tools.length === 0 || (named !== undefined && !tools.some(({ name }) => name === named))))
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'tool_choice demands a call of one of the tools',
      given:
        tools.length === 0
          ? 'there are no functions among tools'
          : `${JSON.stringify(named?.slice(0, 80))} is none of them`,
      fix: 'send the tool, or tool_choice "auto"',
    });
  if (tools.length === 0 || choice === 'none') return {};
  return demanded ? { tools, toolChoice: choice } : { tools };
}
