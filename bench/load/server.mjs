// The real `tandem serve` in a process of its own, and what can be read of it from outside.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** Starts it on a free port and waits until its model is loaded. */
export async function startServer(args) {
  const child = spawn(process.execPath, [CLI, 'serve', '--port', '0', '--log-level', 'error', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
  });
  const kill = () => child.kill('SIGKILL');
  process.on('exit', kill);
  process.once('SIGTERM', () => process.exit(143));
  let said = '';
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  const url = await new Promise((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (piece) => {
      said += piece;
      const [, found] = /^(http:\S+)/m.exec(said) ?? [];
      if (found !== undefined && /^ready$/m.test(said)) resolve(found);
    });
    ended.then(({ code }) => reject(new Error(`the server ended with ${code}: ${said}`)));
  });
  return {
    url,
    pid: child.pid,
    /** Everything on stderr: faults of requests are logged there. */
    said: () => said,
    /** Bytes of memory that are its own: weights that are mapped are not counted. */
    memory() {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)[1]) * 1024;
    },
    /** A gauge of /metrics by its name. */
    async gauges(...names) {
      const text = await (await fetch(`${url}/metrics`)).text();
      return names.map((name) => {
        const found = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text);
        if (found === null) throw new Error(`/metrics has no ${name}`);
        return Number(found[1]);
      });
    },
    async stop() {
      child.kill('SIGTERM');
      await ended;
      process.off('exit', kill);
      return ended;
    },
  };
}
