/**
 * fast-check as every test gets it (vitest.config.ts puts it in the place of the package): the same draws in every run, so
 * that a change is judged by what it changes. `TANDEM_SEED=random` draws others, `TANDEM_SEED=N` those that a failure printed.
 */
import fc from '../node_modules/fast-check/lib/fast-check.js';

const given = process.env.TANDEM_SEED ?? '1';
if (given !== 'random') fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(given) });

export * from '../node_modules/fast-check/lib/fast-check.js';
export default fc;
