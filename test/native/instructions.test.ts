/**
 * No instruction of one build is met on a processor of a weaker one. What always runs (core, addon, the scalar build) holds
 * nothing beyond x86-64; the avx2 build nothing of AVX-512, the avx512 build nothing of AMX; and kernel objects hold nothing that
 * runs by itself when the addon is loaded. Reads the objects that were linked, so inline functions and templates count too.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../../src/backend/native/load.ts';

const build = join(ROOT, 'build');
const objectOf = (isa: string) => join(build, `kernels_${isa}.o`);
const found = spawnSync('objdump', ['--version']).status === 0 && existsSync(objectOf('avx2'));
const reason = found ? undefined : 'no objects of a build here, or no objdump';

type Encoding = 'sse' | 'vex' | 'evex' | 'amx';
/** Where an encoding is met: functions of the object. */
type Found = Record<Encoding, Set<string>>;

// Of SSE3 to SSE4.2 and of the small extensions; `tzcnt` is not here: older processors read it as `bsf`.
const BEYOND_SSE2 = new RegExp(
  `^(${[
    'pshufb|ph(add|sub)|pmaddubsw|pabs|psign|palignr|pmul(hrsw|ld|dq)|pm(in|ax)(sb|sd|uw|ud)|p?blend|round[sp]|ptest',
    'pmov[sz]x|p(insr|extr)[bdq]|pcmp(eqq|gtq|estr|istr)|packusdw|insertps|extractps|dpp[sd]|mpsadbw|phminposuw',
    'crc32|popcnt|lzcnt|movbe|aes|pclmul|movs[hl]dup|movddup|lddqu|addsub|hadd|hsub|movntdqa|cmpxchg16b',
  ].join('|')})`,
);
const PREFIXES = new Set(['66', 'f2', 'f3', '2e', '3e', '26', '36', '64', '65', 'f0']);

/** In 64-bit code 62 always begins EVEX, c4 and c5 VEX; masks are of AVX-512 though VEX names them. */
function encodingOf(bytes: readonly string[], text: string): Encoding | undefined {
  const first = bytes.find((byte) => !PREFIXES.has(byte));
  if (first === '62') return 'evex';
  if (first !== 'c4' && first !== 'c5') return BEYOND_SSE2.test(text) ? 'sse' : undefined;
  if (/^(ldtilecfg|sttilecfg|tile|tdp)/.test(text)) return 'amx';
  return /^k(mov|and|x?n?or|not|o?r?test|unpck|shift|add)/.test(text) ? 'evex' : 'vex';
}

function read(object: string): Found {
  const { stdout, status } = spawnSync('objdump', ['-d', '-w', object], { encoding: 'utf8', maxBuffer: 1 << 30 });
  expect(status).toBe(0);
  const met: Found = { sse: new Set(), vex: new Set(), evex: new Set(), amx: new Set() };
  let symbol = '';
  for (const line of stdout.split('\n')) {
    symbol = /^[0-9a-f]+ <(.+)>:$/.exec(line)?.[1] ?? symbol;
    const [, bytes, text] = /^\s*[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t(.*)$/.exec(line) ?? [];
    const encoding = bytes && encodingOf(bytes.trim().split(' '), text);
    if (encoding) met[encoding].add(symbol);
  }
  return met;
}

const objectsBelow = (folder: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.o'))
        .map((name) => join(folder, name))
    : [];

describe.skipIf(reason)(`instructions ${reason ?? ''}`, () => {
  it('reads what it is to find', () => {
    const { vex, evex, amx } = read(objectOf('amx'));
    for (const functions of [vex, evex, amx]) expect(functions.size).toBeGreaterThan(0);
  });

  it('of what always runs are those of x86-64', () => {
    const always = [
      ...objectsBelow(join(build, 'CMakeFiles', 'core.dir')),
      ...objectsBelow(join(build, 'CMakeFiles', 'tandem.dir')),
    ];
    expect(always.length).toBeGreaterThan(20);
    for (const object of [objectOf('scalar'), ...always]) {
      // Tries the AMX unit where CPUID names one, under a guard.
      const allowed = object.endsWith('try_amx.cc.o') ? 1 : 0;
      const { sse, vex, evex, amx } = read(object);
      expect([...sse, ...vex, ...evex, ...[...amx].slice(allowed)], object).toEqual([]);
    }
  });

  it('of the avx2 build are not of AVX-512, those of avx512 not of AMX', () => {
    const { evex, amx } = read(objectOf('avx2'));
    expect([...evex, ...amx]).toEqual([]);
    expect([...read(objectOf('avx512')).amx]).toEqual([]);
  });

  it.each(['scalar', 'avx2', 'avx512', 'amx'])('of the %s build begin nowhere but in its register functions', (isa) => {
    const sections = spawnSync('objdump', ['-h', objectOf(isa)], { encoding: 'utf8' }).stdout;
    expect(sections).toContain('.text');
    expect(sections).not.toMatch(/\.(init_array|ctors|preinit_array|init)\b/);
    const symbols = spawnSync('nm', ['--defined-only', '--extern-only', '--format=posix', objectOf(isa)], {
      encoding: 'utf8',
    });
    const names = symbols.stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' ')[0]);
    expect(names.length).toBeGreaterThan(5);
    for (const name of names) expect(name).toMatch(new RegExp(`^_ZN6tandem\\d+register_${isa}_\\w+Ev$`));
  });
});
