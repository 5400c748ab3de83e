/**
 * What users get: the packed tarballs, installed into an empty folder on a machine without compiler, with install scripts
 * off. Their third-party dependencies come from npm's cache or registry, as in any install.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { build } from '../cli/tandem.ts';

const ROOT = join(import.meta.dirname, '..', '..');

describe.skipIf(nativeProblem())(`packages ${nativeProblem()?.message ?? ''}`, () => {
  let folder: string;
  let tarballs: string[];

  beforeAll(() => {
    build();
    folder = mkdtempSync(join(tmpdir(), 'tandem-packages-'));
    const packed = execFileSync(process.execPath, ['scripts/pack.mjs', '--out', join(folder, 'packed')], { cwd: ROOT });
    tarballs = packed.toString().trim().split('\n');
  }, 120_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('have no install script, and the cores of all platforms as optional dependencies', () => {
    const [main, core] = tarballs.map(manifestOf);
    expect(main.scripts).toBeUndefined();
    expect(core.scripts).toBeUndefined();
    expect(main.optionalDependencies).toMatchObject({ [String(core.name)]: main.version });
    expect(core).toMatchObject({ os: [process.platform], cpu: [process.arch], version: main.version });
  });

  it('answer after an install without compiler and scripts', () => {
    const home = install('whole', tarballs);
    const { stdout, stderr, status } = tandem(home, 'run', '--no-server', '--temperature', '0', 'What is 3 + 4?');
    expect({ stderr, status }).toMatchObject({ status: 0 });
    expect(stdout).toContain('7');
    expect(tandem(home, 'inspect', '--json').status).toBe(0);
    const explained = tandem(home, 'explain', '--rules', 'exact-decode');
    expect(explained.stdout).toContain('exact-decode.yaml:');
    const machine = join(home, 'machine.json');
    writeFileSync(machine, '{"cpu":{"isa":"avx2","cores":8},"memory":{"bytes":32e9,"bandwidth":76e9}}');
    expect(tandem(home, 'plan', '--machine', machine).stdout).toMatch(/jug-Q8_0\.gguf: fits, about/);
    expect(tandem(home, 'doctor').stdout).toMatch(/^[✓·✗] instructions /m);
    expect(tandem(home, 'list').status).toBe(0);
  }, 180_000);

  it('hold the rules that ship and the pages that the README points to', () => {
    const files = execFileSync('tar', ['tzf', tarballs[0]]).toString().split('\n');
    const rules = readdirSync(join(ROOT, 'rules')).map((name) => `package/rules/${name}`);
    const pages = [...readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/\]\((docs\/[^)#]+)/g)].map(
      ([, page]) => `package/${page}`,
    );
    expect(pages.length).toBeGreaterThan(5);
    expect(files).toEqual(expect.arrayContaining([...rules, ...pages]));
  });

  it('say what is missing where the core was left out', () => {
    const [main, core] = tarballs;
    const file = (path: string) => `file:${path}`;
    const manifest = {
      private: true,
      dependencies: { tandem: file(main) },
      overrides: { [String(manifestOf(core).name)]: file(core) },
    };
    mkdirSync(join(folder, 'bare'));
    writeFileSync(join(folder, 'bare', 'package.json'), JSON.stringify(manifest));
    const home = install('bare', [], '--omit=optional');
    const { stderr, status } = tandem(home, 'run', '--no-server', 'What is 3 + 4?');
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/\[native\] the native core of this platform is the package tandem-\S+; .*; npm install/);
  }, 180_000);

  /** With node, npm and a shell on the PATH, and nothing else. */
  function install(name: string, packages: string[], ...flags: string[]): string {
    const home = join(folder, name);
    mkdirSync(join(home, 'bin'), { recursive: true });
    for (const tool of ['node', 'npm', 'npx', 'sh', 'env']) symlinkSync(which(tool), join(home, 'bin', tool));
    execFileSync(
      'npm',
      ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', ...flags, ...packages],
      {
        cwd: home,
        env: { ...process.env, PATH: join(home, 'bin') },
        stdio: 'pipe',
      },
    );
    return home;
  }

  function manifestOf(tarball: string): Record<string, unknown> {
    const at = join(folder, basename(tarball, '.tgz'));
    mkdirSync(at, { recursive: true });
    if (!readdirSync(at).length) execFileSync('tar', ['xzf', tarball, '-C', at, 'package/package.json']);
    return JSON.parse(readFileSync(join(at, 'package', 'package.json'), 'utf8'));
  }

  function tandem(home: string, ...flags: string[]) {
    return spawnSync(process.execPath, [join(home, 'node_modules', 'tandem', 'dist', 'cli.js'), ...flags], {
      cwd: home,
      env: { PATH: join(home, 'bin'), HOME: home },
      encoding: 'utf8',
    });
  }
});

function which(tool: string): string {
  if (tool === 'node') return process.execPath;
  const folders = [dirname(process.execPath), ...(process.env.PATH ?? '').split(':')];
  const found = folders.map((at) => join(at, tool)).find((path) => spawnSync('test', ['-x', path]).status === 0);
  if (found === undefined) throw new Error(`there is no ${tool} on the PATH`);
  return found;
}
