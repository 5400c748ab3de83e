// Tokens per second of n answers at once, and what the bytes they read allow: each distinct expert is read once for all.
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readBandwidth } from '../../dist/commands/bench/ceiling.js';
import { describeMachine } from '../../dist/commands/bench/report.js';
import { bytesPerToken } from '../../dist/commands/bench/weight-bytes.js';
import { openCheckpoint } from '../../dist/formats/open.js';
import { load } from '../../dist/index.js';
import { buildProgram } from '../../dist/models/index.js';

/** Bytes of weights that one token reads: of routed experts by layer, and of all else. */
async function bytesOf(model) {
  const checkpoint = await openCheckpoint(model);
  try {
    const { program } = await buildProgram(checkpoint);
    const layers = [];
    let rest = 0;
    for (const step of program.steps) {
      const bytes = bytesPerToken(program, step);
      if (step.op !== 'experts') rest += bytes;
      else
        layers.push({
          bytes,
          chosen: step.inputs[1].columns,
          experts: program.weights[step.inputs[3].weight].shape[0],
        });
    }
    return { layers, rest };
  } finally {
    await checkpoint.close();
  }
}

/** Bytes that a pass over n sequences reads. */
function bytesOfPass({ layers, rest }, n) {
  return layers.reduce((sum, { bytes, chosen, experts }) => {
    const distinct = experts * (1 - (1 - chosen / experts) ** n);
    return sum + (bytes * distinct) / chosen;
  }, rest);
}

/** While all n decode: tokens and passes per second, and the share of each sequence in them. */
async function decodeTogether(engine, n, { prompt, generate }) {
  const { vocabSize } = engine.info;
  const stop = new AbortController();
  const all = Array.from({ length: n }, (_, s) => {
    const ids = Array.from({ length: prompt }, (_, i) => 10 + (((i + 1) * 7919 + s * 104729) % (vocabSize - 10)));
    return engine.generate(ids, { temperature: 0, maxTokens: generate, ignoreEos: true, signal: stop.signal });
  });
  let begin;
  let end;
  let done = false;
  const whole = Promise.all(all).finally(() => (done = true));
  while (!done) {
    const now = performance.now();
    const generated = engine.requests().map((request) => request.generated);
    const { passes } = engine.stats();
    if (generated.length === n && generated.every((count) => count >= 1)) {
      begin ??= { now, generated, passes };
      end = { now, generated, passes };
    }
    await sleep(2);
  }
  await whole;
  if (begin === undefined) throw new Error(`[bench] ${n} answers never ran together; --generate more than ${generate}`);
  const seconds = (end.now - begin.now) / 1000;
  const each = end.generated.map((count, i) => count - begin.generated[i]);
  const tokens = each.reduce((sum, count) => sum + count, 0);
  return {
    tokensPerSecond: tokens / seconds,
    passesPerSecond: (end.passes - begin.passes) / seconds,
    fewest: Math.min(...each),
    most: Math.max(...each),
  };
}

export async function measureStreams(model, { streams, prompt, generate, rounds, threads, exact }) {
  const bytes = await bytesOf(model);
  const engine = await load(model, {
    ...(threads && { threads }),
    exact,
    contextLength: prompt + generate + 1,
    maxSequences: Math.max(...streams),
    prefixCache: false,
  });
  try {
    const machine = describeMachine();
    const used = Number(engine.info.execution.threads);
    const bandwidth = () => readBandwidth(used, machine).bytesPerSecond;
    await decodeTogether(engine, 1, { prompt, generate: 16 }); // warms up
    // Memory is measured around each run: on a machine with neighbours it moves by a factor of two within seconds.
    const runs = streams.map(() => []);
    let before = bandwidth();
    for (let round = 0; round < rounds; round++)
      for (const [i, n] of streams.entries()) {
        const run = await decodeTogether(engine, n, { prompt, generate });
        const after = bandwidth();
        const read = (before + after) / 2;
        const allowed = (n * read) / bytesOfPass(bytes, n);
        runs[i].push({
          ...run,
          readGigabytesPerSecond: read / 1e9,
          allowed,
          shareOfAllowed: run.tokensPerSecond / allowed,
        });
        before = after;
      }
    const medianBy = (list, key) => [...list].sort((a, b) => a[key] - b[key])[list.length >> 1];
    const lines = streams.map((n, i) => ({
      streams: n,
      ...medianBy(runs[i], 'tokensPerSecond'),
      shareOfAllowed: medianBy(runs[i], 'shareOfAllowed').shareOfAllowed,
      bytesPerPass: bytesOfPass(bytes, n),
    }));
    const alone = lines.find(({ streams: n }) => n === 1);
    for (const line of lines) {
      line.timesOne = alone && line.tokensPerSecond / alone.tokensPerSecond;
      line.timesOneAllowed = alone && (line.streams * alone.bytesPerPass) / line.bytesPerPass;
    }
    return {
      model: basename(engine.info.model),
      threads: used,
      isa: engine.info.execution.isa,
      numerics: engine.info.numerics,
      prompt,
      generate,
      lines,
    };
  } finally {
    await engine.dispose();
  }
}

export function renderStreams({ model, threads, isa, lines }) {
  const head = `${model}, ${threads} threads, ${isa}; medians, shares of what memory gave around each run`;
  return [
    head,
    ...lines.map(
      (line) =>
        `${line.streams} streams\t${line.tokensPerSecond.toFixed(1)} tok/s in all\t${(100 * line.shareOfAllowed).toFixed(0)} % of what is allowed (${line.allowed.toFixed(1)} at ${line.readGigabytesPerSecond.toFixed(1)} GB/s)` +
        `\t${line.timesOne?.toFixed(2) ?? '–'}× one (allowed ${line.timesOneAllowed?.toFixed(2) ?? '–'}×)\teach ${line.fewest}–${line.most} tokens`,
    ),
  ].join('\n');
}
