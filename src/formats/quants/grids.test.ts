import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { evenSigns, type GridName, grid } from './grids.ts';
import { GRID_DATA } from './grids-data.ts';

/** SHA-256 of the levels as int8, row after row, taken from a table that was not packed into bitmaps. */
const DIGESTS: Readonly<Record<GridName, string>> = {
  iq1_s: '07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a',
  iq2_xxs: '05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54',
  iq2_xs: '06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de',
  iq2_s: 'e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88',
  iq3_xxs: '46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d',
  iq3_s: 'bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f',
};

describe('code books', () => {
  it.each(Object.entries(DIGESTS) as [GridName, string][])('%s has the levels of its format', (name, digest) => {
    const levels = grid(name);
    expect(levels.length).toBe(GRID_DATA[name].rows * GRID_DATA[name].weights);
    expect(createHash('sha256').update(levels).digest('hex')).toBe(digest);
  });

  it('are what scripts/make-grids.mjs writes, in both languages', () => {
    const script = fileURLToPath(new URL('../../../scripts/make-grids.mjs', import.meta.url));
    const result = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
    expect(result.stderr).toBe('');
    expect(result.status).toBe(0);
  });

  it('have an even number of signs where seven bits give eight', () => {
    for (let seven = 0; seven < 128; seven++) {
      const signs = evenSigns(seven);
      expect(signs & 127).toBe(seven);
      expect(signs.toString(2).replaceAll('0', '').length % 2).toBe(0);
      expect(signs).toBeLessThan(256);
    }
  });
});
