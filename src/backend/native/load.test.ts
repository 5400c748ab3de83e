import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadFrom, loadNative, nativeProblem } from './load.ts';

describe('loadFrom', () => {
  it('says what to run where nothing was built', () => {
    expect(() => loadFrom('/no/such/tandem.node', '1.0.0')).toThrow(
      expect.objectContaining({ code: 'NATIVE_UNAVAILABLE', message: expect.stringContaining('npm run build:native') }),
    );
  });

  it('says why a file is no addon', () => {
    const folder = mkdtempSync(join(tmpdir(), 'tandem-load-'));
    const file = join(folder, 'tandem.node');
    writeFileSync(file, 'not an addon');
    try {
      expect(() => loadFrom(file, '1.0.0')).toThrow(expect.objectContaining({ code: 'NATIVE_UNAVAILABLE' }));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe.skipIf(nativeProblem())(`the addon ${nativeProblem()?.message ?? ''}`, () => {
  it('describes the machine', () => {
    const machine = loadNative().machine();
    expect(machine.isas[0]).toBe('scalar');
    expect(machine.isas).toContain(machine.isa);
    expect(machine.usableCores).toBeGreaterThan(0);
    expect(machine.usableCores).toBeLessThanOrEqual(machine.logicalCores);
    expect(machine.availableBytes).toBeLessThanOrEqual(machine.memoryBytes);
  });

  it('measures how fast memory is read', () => {
    const { threads, bytesPerSecond } = loadNative().readBandwidth(1, 32 << 20);
    expect(threads).toBe(1);
    expect(bytesPerSecond).toBeGreaterThan(1e8); // slower than a disk would be a mistake of units
    expect(bytesPerSecond).toBeLessThan(1e13);
    expect(loadNative().readBandwidth(0, 1).threads).toBe(loadNative().machine().defaultThreads);
  });

  it('refuses to be another version', () => {
    const file = join(import.meta.dirname, '..', '..', '..', 'build', 'tandem.node');
    expect(() => loadFrom(file, '999.0.0')).toThrow(/is of version 999\.0\.0; .* is of version/);
  });

  it('refuses wrong arguments with an error, not a crash', async () => {
    const binding = loadNative() as unknown as Record<string, (...given: unknown[]) => unknown>;
    await expect(binding.createModel()).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await expect(binding.createModel({}, () => {}, new Int32Array(1))).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
    expect(() => binding.decodeRows('f32', new Uint8Array(3), 1, 1, null, 'scalar')).toThrow(/bytes/);
    expect(() => binding.decodeRows()).toThrow(/arguments/);
    expect(() => binding.readBandwidth(-1, 1)).toThrow(/arguments/);
    expect(() => binding.readBandwidth(1, 2 ** 60)).toThrow(expect.objectContaining({ code: 'OUT_OF_MEMORY' }));
    expect(() => binding.quantize('q8_32', new Float32Array(31), 'scalar')).toThrow(/whole blocks/);
  });
});
