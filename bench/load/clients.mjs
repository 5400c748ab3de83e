// One request of the load test, sent in one of several manners, and what became of it.
import { setTimeout as sleep } from 'node:timers/promises';
import { MALFORMED, streamedAnswer, wireAnswer } from './requests.mjs';

const MANNERS = [
  ['whole', 0.3],
  ['stream', 0.42],
  ['leaves the prompt', 0.09],
  ['leaves the answer', 0.09],
  ['malformed', 0.1],
];

export function mannerOf(random) {
  let left = random.next();
  for (const [manner, share] of MANNERS) if ((left -= share) < 0) return manner;
  return 'whole';
}

/** Nobody waits for ever, whatever it is that hangs. */
const PATIENCE_MS = 60_000;

/** One request, sent until the queue takes it; undefined, or what should not have been. */
export async function play(load) {
  const patience = new AbortController();
  const at = { where: 'nowhere' };
  const late = sleep(PATIENCE_MS, undefined, { signal: patience.signal });
  late.catch(() => {});
  try {
    return await Promise.race([
      played(load, at),
      late.then(() => `not answered in ${PATIENCE_MS / 1000} s: ${at.where}`),
    ]);
  } finally {
    patience.abort();
  }
}

async function played({ url, pool, answers, random, tally }, at) {
  const manner = mannerOf(random);
  at.where = manner;
  tally[manner] = (tally[manner] ?? 0) + 1;
  if (manner === 'malformed') return malformed(url, random.of(MALFORMED));
  const index = random.below(pool.length);
  const { path, body } = pool[index];
  at.where += `, request ${index} of the pool`;
  const streams = manner === 'stream' || manner === 'leaves the answer' || random.next() < 0.5;
  const leave = new AbortController();
  const given = {
    ...body,
    temperature: 0,
    stream: manner === 'whole' ? false : streams,
    stream_options: { include_usage: true },
    priority: random.of([-1, 0, 0, 0, 2]),
  };
  if (!given.stream) delete given.stream_options;
  const leaving = manner === 'leaves the prompt' ? setTimeout(() => leave.abort(), random.between(0, 40)) : undefined;
  try {
    const response = await accepted(url + path, given, leave.signal, random, tally);
    if (typeof response === 'string') return response;
    let events = 0;
    const most = random.between(1, 6);
    const answer = given.stream
      ? await streamedAnswer(response, () => manner === 'leaves the answer' && ++events >= most)
      : wireAnswer(await response.json());
    if (answer === undefined) {
      leave.abort();
      return undefined;
    }
    const [got, expected] = [JSON.stringify(answer), JSON.stringify(answers[index])];
    if (got !== expected) return `request ${index} of the pool (${manner}): ${got} instead of ${expected}`;
  } catch (error) {
    if (!leave.signal.aborted) return `request ${index} of the pool (${manner}): ${error.message}`;
  } finally {
    clearTimeout(leaving);
  }
  return undefined;
}

async function accepted(url, body, signal, random, tally) {
  for (;;) {
    const response = await post(url, JSON.stringify(body), signal);
    if (response.status === 200) return response;
    const { error } = await response.json();
    if (response.status !== 429) return `${response.status}: ${error?.message}`;
    tally.refused = (tally.refused ?? 0) + 1;
    const after = response.headers.get('retry-after');
    if (!(Number(after) > 0) || error.type !== 'rate_limit_error' || response.headers.get('x-should-retry') !== 'true')
      return `a 429 does not say when to come again: ${after} ${JSON.stringify(error)}`;
    await sleep(random.between(200, 800), undefined, { signal }); // sooner than told, so that the queue stays full
  }
}

async function malformed(url, { body, code }) {
  const response = await post(`${url}/v1/chat/completions`, body);
  const text = await response.text();
  if (response.status === 429) {
    await sleep(300); // the queue is looked at before the prompt is read
    return malformed(url, { body, code });
  }
  const shown = String(body).slice(0, 60);
  if (response.status < 400 || response.status >= 500) return `${shown} got ${response.status}: ${text.slice(0, 100)}`;
  const { error } = JSON.parse(text);
  if (typeof error?.message !== 'string' || /\bat .*:\d+:\d+/.test(error.message)) return `${shown}: ${text}`;
  return code !== undefined && error.code !== code ? `${shown}: code ${error.code} instead of ${code}` : undefined;
}

function post(url, body, signal) {
  return fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal });
}
