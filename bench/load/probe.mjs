// A thread of its own that asks /v1/models all the time: the busy clients beside it must not count as the server's delay.
import { get } from 'node:http';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';

const { url, everyMs } = workerData;
const times = [];
let failures = 0;
let stopped = false;
parentPort.on('message', () => {
  stopped = true;
});
const ask = () =>
  new Promise((resolve) => {
    const begin = performance.now();
    get(`${url}/v1/models`, { agent: false }, (response) => {
      if (response.statusCode !== 200) failures++;
      response.resume().on('end', () => resolve(performance.now() - begin));
    }).on('error', () => {
      failures++;
      resolve(performance.now() - begin);
    });
  });
while (!stopped) {
  times.push(await ask());
  await sleep(everyMs);
}
parentPort.postMessage({ times, failures });
