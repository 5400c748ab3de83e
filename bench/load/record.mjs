// Prints a result, and writes it into bench/results/ with machine, commit and command.
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../../dist/commands/bench/report.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export function report({ json, record }, name, result, text) {
  console.log(json ? JSON.stringify(result) : text);
  if (!record) return;
  const git = ['describe', '--always', '--dirty', '--exclude', '*'];
  const whole = {
    command: ['node', 'bench/load.mjs', ...process.argv.slice(2).map((word) => basename(word))].join(' '),
    date: new Date().toISOString(),
    commit: existsSync(`${ROOT}.git`) ? execFileSync('git', git, { cwd: ROOT, encoding: 'utf8' }).trim() : undefined,
    machine: describeMachine(),
    result,
  };
  writeFileSync(`${ROOT}bench/results/${name}.json`, `${JSON.stringify(whole, null, 2)}\n`);
}
