/** embed: rows of the table, exactly. */
import { describe, it } from 'vitest';
import { FORMAT_NAMES } from '../../src/formats/dtype.ts';
import { quantFormat } from '../../src/formats/quants/index.ts';
import { judgeOp, nativeIsas, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

describe.skipIf(reason).each(isas)(`embed, %s ${reason ?? ''}`, (isa) => {
  it.each(FORMAT_NAMES)('%s', async (format) => {
    const columns = quantFormat(format).blockSize === 1 ? 137 : 3 * quantFormat(format).blockSize;
    const tokens = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % 131);
    const test = { op: 'embed', inputs: [weight(format, [131, columns], 1)], tokens };
    for (const threads of [1, 3]) await judgeOp(test, isa, { threads });
  });
});
