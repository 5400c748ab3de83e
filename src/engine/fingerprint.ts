/**
 * Names what keys and values depend on: the model's bytes and how they are computed. Two that are equal give pages that can
 * stand for each other. Reads a sample of each file, not all of it.
 */
import { createHash } from 'node:crypto';
import type { Checkpoint } from '../formats/checkpoint.ts';

/** Goes up when a release computes keys or values differently. */
const NUMERICS_VERSION = 1;

/** Stretches of a file that are read: its head, its end, and places between. */
const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

export async function fingerprint(
  checkpoint: Checkpoint,
  numerics: Readonly<Record<string, string | number | boolean>>,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify({ version: NUMERICS_VERSION, ...numerics }));
  for (const file of checkpoint.files) {
    const bytes = Math.min(SAMPLE_BYTES, file.size);
    hash.update(`\n${file.size} `);
    for (let i = 0; i < SAMPLES; i++) {
      const start = Math.floor(((file.size - bytes) * i) / (SAMPLES - 1));
      hash.update(await file.read(start, start + bytes));
    }
  }
  return hash.digest('hex');
}
