/**
 * Prometheus metrics: what happened (requests, tokens, times) and what is (running, queued, KV). The gauges
 * `tandem_num_requests_waiting` and `tandem_kv_cache_usage_ratio` are the two that the model-server protocol of the
 * Gateway API Inference Extension asks for; docs/guide/serve.md maps them.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { GenerationResult } from '../engine/result.ts';
import type { ModelHost } from './models.ts';

const SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000];
const RATES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

export class ServerMetrics {
  readonly registry = new Registry();
  readonly #requests: Counter;
  readonly #duration: Histogram;
  readonly #promptTokens: Counter;
  readonly #cachedTokens: Counter;
  readonly #completionTokens: Counter;
  readonly #firstToken: Histogram;
  readonly #queue: Histogram;
  readonly #decodeRate: Histogram;

  constructor(models: ModelHost) {
    const registers = [this.registry];
    const model = ['model'];
    collectDefaultMetrics({ register: this.registry, prefix: 'tandem_' });
    this.#requests = new Counter({
      name: 'tandem_http_requests_total',
      help: 'Requests answered, by dialect and status.',
      labelNames: ['dialect', 'status'],
      registers,
    });
    this.#duration = new Histogram({
      name: 'tandem_http_request_seconds',
      help: 'From the first byte of a request to the last of its answer.',
      labelNames: ['dialect'],
      buckets: SECONDS,
      registers,
    });
    this.#promptTokens = new Counter({
      name: 'tandem_prompt_tokens_total',
      help: 'Tokens of prompts, cached ones included.',
      labelNames: model,
      registers,
    });
    this.#cachedTokens = new Counter({
      name: 'tandem_cached_tokens_total',
      help: 'Tokens of prompts that came from the prefix cache.',
      labelNames: model,
      registers,
    });
    this.#completionTokens = new Counter({
      name: 'tandem_completion_tokens_total',
      help: 'Tokens drawn.',
      labelNames: model,
      registers,
    });
    this.#firstToken = new Histogram({
      name: 'tandem_time_to_first_token_seconds',
      help: 'From the request to its first token, the queue included.',
      labelNames: model,
      buckets: SECONDS,
      registers,
    });
    this.#queue = new Histogram({
      name: 'tandem_queue_seconds',
      help: 'Until a request got its first rows of a pass.',
      labelNames: model,
      buckets: SECONDS,
      registers,
    });
    this.#decodeRate = new Histogram({
      name: 'tandem_decode_tokens_per_second',
      help: 'Tokens after the first one, per second of one answer.',
      labelNames: model,
      buckets: RATES,
      registers,
    });
    const gauge = (name: string, help: string, read: (id: string) => number) =>
      new Gauge({
        name,
        help,
        labelNames: model,
        registers,
        collect() {
          for (const { id } of models.list()) this.set({ model: id }, read(id));
        },
      });
    /** What the engine counts since its model was loaded. */
    const counter = (name: string, help: string, read: (id: string) => number | undefined) =>
      new Counter({
        name,
        help,
        labelNames: model,
        registers,
        collect() {
          this.reset();
          for (const { id } of models.list()) this.inc({ model: id }, read(id) ?? 0);
        },
      });
    const stats = (id: string) => models.peek(id)?.stats();
    gauge('tandem_num_requests_running', 'Requests that have pages and rows.', (id) => stats(id)?.running ?? 0);
    gauge(
      'tandem_num_requests_waiting',
      'Requests that wait for pages or their turn.',
      (id) => stats(id)?.waiting ?? 0,
    );
    gauge('tandem_kv_cache_usage_ratio', 'Share of the KV pages that are in use, 0 to 1.', (id) => {
      const s = stats(id);
      return s === undefined ? 0 : 1 - s.freePages / s.totalPages;
    });
    gauge('tandem_kv_pages', 'KV pages of 64 tokens there are.', (id) => stats(id)?.totalPages ?? 0);
    counter(
      'tandem_preemptions_total',
      'Sequences that gave their pages back since the model was loaded.',
      (id) => stats(id)?.preemptions,
    );
    counter('tandem_passes_total', 'Passes since the model was loaded.', (id) => stats(id)?.passes);
    counter('tandem_rows_total', 'Rows (tokens) computed since the model was loaded.', (id) => stats(id)?.rows);
    gauge('tandem_prefix_pages', 'Pages in the prefix cache, in memory.', (id) => stats(id)?.prefixes?.pages ?? 0);
    counter(
      'tandem_prefix_evictions_total',
      'Pages that the prefix cache gave up for requests.',
      (id) => stats(id)?.prefixes?.evicted,
    );
    const disk = (id: string) => stats(id)?.disk;
    gauge('tandem_prefix_disk_pages', 'Pages of the model on disk.', (id) => disk(id)?.pages ?? 0);
    gauge('tandem_prefix_disk_bytes', 'Bytes of the folder, all models.', (id) => disk(id)?.folderBytes ?? 0);
    counter('tandem_prefix_disk_read_total', 'Pages brought back from disk.', (id) => disk(id)?.hits);
    counter('tandem_prefix_disk_written_total', 'Pages written to disk.', (id) => disk(id)?.written);
    counter('tandem_prefix_disk_corrupt_total', 'Damaged files, deleted unused.', (id) => disk(id)?.corrupt);
    counter('tandem_prefix_disk_errors_total', 'Reads and writes the system refused.', (id) => disk(id)?.errors);
    const shared = (id: string) => models.peek(id)?.sharingCounts();
    gauge('tandem_gpu_held_experts', 'Experts of the CPU that GPUs hold a copy of.', (id) => shared(id)?.held ?? 0);
    counter(
      'tandem_gpu_held_expert_hits_total',
      'Choices of passes that generate, of experts that GPUs held.',
      (id) => shared(id)?.hits,
    );
    counter(
      'tandem_gpu_held_expert_misses_total',
      'The same, of experts that the CPU computed.',
      (id) => shared(id)?.misses,
    );
    counter('tandem_gpu_expert_uploads_total', 'Experts that GPUs got a copy of.', (id) => shared(id)?.uploads);
    counter(
      'tandem_gpu_streamed_passes_total',
      'Passes over prompts whose experts streamed through GPUs.',
      (id) => shared(id)?.streamedPasses,
    );
    counter('tandem_model_loads_total', 'How often a model was loaded.', (id) => models.find(id)?.loads);
    gauge('tandem_model_loaded', '1 where the model is ready.', (id) => (models.peek(id) === undefined ? 0 : 1));
  }

  answered(dialect: string, status: number, milliseconds: number): void {
    this.#requests.inc({ dialect, status });
    this.#duration.observe({ dialect }, milliseconds / 1000);
  }

  generated(model: string, { usage, timings }: GenerationResult): void {
    this.#promptTokens.inc({ model }, usage.promptTokens);
    this.#cachedTokens.inc({ model }, usage.cachedTokens);
    this.#completionTokens.inc({ model }, usage.completionTokens);
    this.#queue.observe({ model }, timings.queueMs / 1000);
    if (usage.completionTokens > 0) this.#firstToken.observe({ model }, timings.timeToFirstTokenMs / 1000);
    if (usage.completionTokens > 1) this.#decodeRate.observe({ model }, timings.tokensPerSecond);
  }
}
