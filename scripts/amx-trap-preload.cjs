// Takes the addon of scripts/amx-trap.mjs where build/tandem.node is asked for.
const { basename } = require('node:path');

const dlopen = process.dlopen;
process.dlopen = (module, file, ...rest) =>
  dlopen.call(process, module, basename(file) === 'tandem.node' ? process.env.TANDEM_AMX_TRAP_ADDON : file, ...rest);
