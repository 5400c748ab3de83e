/**
 * Loads @mlc-ai/web-xgrammar (grammars compiled to WebAssembly). As published it is a UMD file in an ES-module package, which
 * Node cannot import; it is compiled here as the CommonJS it is. Its faults end an instance: they are told by the message
 * it printed, and the next use gets a new instance.
 */
import { readFileSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import type * as XGrammar from '@mlc-ai/web-xgrammar';

export type { CompiledGrammar, GrammarMatcher, StructuralTagFormat } from '@mlc-ai/web-xgrammar';

export interface XGrammarInstance {
  readonly library: typeof XGrammar;
  /** What it printed since the last call; a fault's last word. */
  complaint(): string;
}

interface CompilableModule extends Module {
  _compile(code: string, filename: string): void;
  console: Pick<Console, 'log' | 'warn' | 'error' | 'info'>;
}

let source: { readonly code: string; readonly path: string } | undefined;

/** A fresh instance; its WebAssembly starts with the first call. */
export function instantiate(): XGrammarInstance {
  if (source === undefined) {
    const path = createRequire(import.meta.url).resolve('@mlc-ai/web-xgrammar');
    source = { path, code: readFileSync(path, 'utf8') };
  }
  const lines: string[] = [];
  const keep = (...words: unknown[]) => {
    lines.push(words.map(String).join(' '));
    if (lines.length > 20) lines.shift();
  };
  const module = new Module(source.path) as CompilableModule;
  module.filename = source.path;
  module.console = { log: keep, warn: keep, error: keep, info: keep };
  module._compile(`const console = module.console; ${source.code}`, source.path);
  return {
    library: module.exports as typeof XGrammar,
    complaint() {
      const fatal = lines.find((line) => line.startsWith('[FATAL]')) ?? lines[0] ?? '';
      lines.length = 0;
      // `[FATAL] /path/to/file.cc:12: what was wrong`
      return fatal.replace(/^\[FATAL\] \S+?:\d+:\s*/, '').trim();
    },
  };
}
