/** `tandem rm MODEL`: removes a model from the cache, and of its bytes those that nothing else there refers to. */
import type { Command } from 'commander';
import { TandemError } from '../errors.ts';
import { Cache, cachedModels, chooseVariant, hubSettings, removeCached, toReference } from '../hub/index.ts';
import { confirm } from './confirm.ts';
import { formatBytes } from './terminal.ts';

export function addRemove(cli: Command): void {
  cli
    .command('rm')
    .description('remove a model from the cache')
    .argument('<model>', 'organization/model:QUANT, or organization/model for all of it')
    .option('-y, --yes', 'do not ask')
    .addHelpText(
      'after',
      `
Examples:
  tandem rm unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL
  tandem rm --yes Qwen/Qwen3-0.6B               also what is left of an unfinished download`,
    )
    .action(remove);
}

async function remove(name: string, { yes = false }: { yes?: boolean }): Promise<void> {
  const { repository, quant, revision } = toReference(name);
  if (revision !== undefined)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'rm removes a model at every revision',
      given: name,
      fix: `tandem rm ${name.slice(0, name.lastIndexOf('@'))}`,
    });
  const { cache } = await hubSettings();
  const here = (await cachedModels(cache)).filter((model) => model.repository === repository);
  if (!(await new Cache(cache).has(repository)) || (quant !== undefined && here.length === 0))
    throw new TandemError('FILE_NOT_FOUND', {
      room: 'cli',
      rule: 'a model that is removed is in the cache',
      given: `${name} is not in ${cache}`,
      fix: 'tandem list shows what is',
    });
  const variants = here.map(({ variant }) => variant);
  const doomed = quant === undefined ? variants : [chooseVariant(repository, variants, quant)];
  const what =
    doomed.map((variant) => `${variant.name}, ${formatBytes(variant.bytes)}`).join('; ') || 'an unfinished download';
  const asked = `remove ${repository} (${what})?`;
  if (!yes && !(await confirm(asked, 'rm', '--yes'))) return;
  const freed = await removeCached(repository, quant === undefined ? undefined : [doomed[0].name], cache);
  process.stderr.write(`removed; ${formatBytes(freed)} are free again\n`);
}
