// A server with a prefix store is killed at random moments, again and again: every answer equals the one without a store.
//   npm run build && node bench/kill.mjs [MODEL] [--kills 200] [--seed 1] [--size 5MB] [--json]
// Kills fall into loading, reading of prompts, answers, writing of pages and eviction (the folder is kept small). After the last
// one the store has to be readable, without a damaged page, and of use.
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kills: { type: 'string', default: '200' },
    seed: { type: 'string', default: '1' },
    size: { type: 'string', default: '5MB' },
    json: { type: 'boolean', default: false },
  },
});
const kills = Number(values.kills);
let state = Number(values.seed) >>> 0;
/** Uniform in [0, 1), the same for the same seed. */
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};

const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const WORDS = 'one two three four five six seven eight nine ten jug water fill empty pour left right take'.split(' ');
/** Prompts that begin alike for some pages and then do not. */
const prompts = Array.from({ length: 12 }, (_, i) => {
  const word = (n) => WORDS[(n * n + 3 * n) % WORDS.length];
  const shared = Array.from({ length: 150 + 60 * (i % 4) }, (_, n) => word(n));
  const own = Array.from({ length: 60 + 10 * i }, (_, n) => word(n + 7 * i + 1));
  return `${shared.join(' ')} ${i} ${own.join(' ')}`;
});

async function start(folder) {
  const disk = folder === undefined ? [] : ['--prefix-cache', folder, '--prefix-cache-size', values.size];
  const args = [CLI, 'serve', ...positionals, '--port', '0', '--exact', '--parallel', '4', ...disk];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.on('close', resolve));
  let text = '';
  const url = await new Promise((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (piece) => {
      text += piece;
      const found = /http:\/\/\S+/.exec(text);
      if (found) resolve(found[0]);
    });
    ended.then(() => reject(new Error(`the server ended: ${text}`)));
  });
  return { child, ended, url, said: () => text };
}

/** The answer to a prompt; undefined where the server was killed before it came. */
async function ask({ url }, prompt) {
  try {
    const reply = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt, max_tokens: 24, temperature: 0 }),
    });
    const body = await reply.json();
    if (!reply.ok) throw new Error(`${reply.status}: ${JSON.stringify(body)}`);
    return { text: body.choices[0].text, cached: body.usage.prompt_tokens_details.cached_tokens };
  } catch (error) {
    if (error instanceof TypeError) return undefined; // fetch's word for a connection that broke
    throw error;
  }
}

const end = async (server) => {
  server.child.kill('SIGTERM');
  await server.ended;
};
const metric = async ({ url }, name) => {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^${name}\\{.*\\} (.*)$`, 'm').exec(text)?.[1]);
};

const folder = await mkdtemp(join(tmpdir(), 'tandem-kill-'));
const live = new Set();
/** Names of files that a kill left half-written. */
const half = new Set();
try {
  const plain = await start(undefined);
  const wanted = [];
  const begun = performance.now();
  for (const prompt of prompts) wanted.push((await ask(plain, prompt)).text);
  // So that a server lives for some answers, on a busy machine too.
  const life = ((performance.now() - begun) / prompts.length) * 12;
  await end(plain);

  const found = { kills, answers: 0, unequal: 0, cachedTokens: 0, halfFiles: 0 };
  const judge = (i, answer) => {
    if (answer === undefined) return;
    found.answers++;
    found.cachedTokens += answer.cached;
    if (answer.text !== wanted[i]) found.unequal++;
  };
  for (let kill = 0; kill < kills; kill++) {
    const server = await start(folder);
    live.add(server.child);
    let dead = false;
    const asking = [0, 1, 2].map(async () => {
      while (!dead) {
        const i = Math.floor(random() * prompts.length);
        const answer = await ask(server, prompts[i]);
        judge(i, answer);
        if (answer === undefined) return;
      }
    });
    // One in five before or while the model is loaded, the others while it works.
    if (random() < 0.2) await sleep(random() * 500);
    else {
      while (!(await fetch(`${server.url}/health`)).ok) await sleep(20);
      await sleep(random() * life);
    }
    dead = true;
    server.child.kill('SIGKILL');
    await Promise.all([...asking, server.ended]);
    live.delete(server.child);
    const names = await readdir(folder, { recursive: true });
    for (const name of names) if (name.endsWith('.tmp')) half.add(name);
    found.halfFiles = half.size;
    if (!values.json) process.stderr.write(`\r${kill + 1} kills, ${found.answers} answers, ${found.unequal} unequal `);
  }
  if (!values.json) process.stderr.write('\n');

  const last = await start(folder);
  live.add(last.child);
  for (const [i, prompt] of prompts.entries()) judge(i, await ask(last, prompt));
  for (const what of ['pages', 'bytes', 'read_total', 'corrupt_total', 'errors_total'])
    found[what] = await metric(last, `tandem_prefix_disk_${what}`);
  await end(last);
  live.delete(last.child);
  console.log(JSON.stringify(found));
  if (found.unequal > 0 || found.corrupt_total > 0 || found.errors_total > 0) process.exitCode = 1;
} finally {
  for (const child of live) child.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
}
