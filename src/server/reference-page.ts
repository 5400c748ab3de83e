/**
 * `/openapi.json`, generated from the validators, and `/docs`, the same as a page to read: every route with its fields,
 * written here as plain HTML. No script runs and nothing is fetched.
 */
import type { ServerApp } from './context.ts';
import { get } from './routes.ts';

interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly description?: string;
  readonly properties?: Record<string, Schema>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly minimum?: number;
  readonly maximum?: number;
}

interface Operation {
  readonly summary?: string;
  /** Further paths. */
  readonly description?: string;
  readonly tags?: readonly string[];
  readonly requestBody?: { readonly content?: Record<string, { readonly schema?: Schema }> };
}

const CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
code { font: 0.9em ui-monospace, monospace; }
summary { cursor: pointer; }
summary, .plain { margin: 0; padding: 0.4rem 0; }
.plain { padding-left: 1.05rem; }
summary b, .plain b { display: inline-block; min-width: 3.5rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
td { border-top: 1px solid #8884; padding: 0.2rem 0.6rem 0.2rem 0; vertical-align: top; }`;

export function mountReference(app: ServerApp, version: string): void {
  const document = () =>
    app.getOpenAPI31Document({
      openapi: '3.1.0',
      info: {
        title: 'Tandem',
        version,
        description: 'OpenAI, Anthropic, Ollama and llama.cpp dialects of one engine.',
      },
    });
  get(app, undefined, {
    paths: ['/openapi.json'],
    tag: 'Operation',
    summary: 'All routes and their fields, OpenAPI 3.1',
    handle: (request) => request.json(document()),
  });
  get(app, undefined, {
    paths: ['/docs'],
    tag: 'Operation',
    summary: 'The same as a page to read',
    handle: () => {
      const { paths = {} } = document() as { paths?: Record<string, Record<string, Operation>> };
      return new Response(page(paths, version), {
        headers: { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': CSP },
      });
    },
  });
}

function page(paths: Record<string, Record<string, Operation>>, version: string): string {
  const groups = new Map<string, string[]>();
  for (const [path, operations] of Object.entries(paths))
    for (const [method, operation] of Object.entries(operations)) {
      const tag = operation.tags?.[0] ?? 'Other';
      groups.set(tag, [...(groups.get(tag) ?? []), route(method, path, operation)]);
    }
  const body = [...groups].map(([tag, routes]) => `<h2>${html(tag)}</h2>${routes.join('')}`).join('');
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Tandem API</title><style>${STYLE}</style></head><body><h1>Tandem ${html(version)}</h1><p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. Paths with <code>/v1</code> work without it too.</p>${body}</body></html>`;
}

function route(method: string, path: string, { summary = '', description = '', requestBody }: Operation): string {
  const schema = requestBody?.content?.['application/json']?.schema;
  const rows = schema === undefined ? '' : fieldRows(schema, '');
  const head = `<b>${method.toUpperCase()}</b> <code>${html(path)}</code> ${html(summary)} <small>${html(description)}</small>`;
  return rows === ''
    ? `<p class="plain">${head}</p>`
    : `<details><summary>${head}</summary><table>${rows}</table></details>`;
}

/** A row a field, those of objects and of items of arrays below theirs. */
function fieldRows(schema: Schema, prefix: string): string {
  return Object.entries(schema.properties ?? {})
    .map(([name, field]) => {
      const needed = schema.required?.includes(name) ? ' (required)' : '';
      const row = `<tr><td><code>${html(prefix + name)}</code></td><td>${html(typeName(field))}${needed}</td><td>${html(field.description ?? '')}</td></tr>`;
      const below = [field, ...(field.anyOf ?? [])].flatMap((kind) => [
        fieldRows(kind, `${prefix}${name}.`),
        kind.items ? fieldRows(kind.items, `${prefix}${name}[].`) : '',
      ]);
      return row + below.join('');
    })
    .join('');
}

function typeName(schema: Schema): string {
  if (schema.enum) return schema.enum.map(String).join(' | ');
  if (schema.anyOf) return schema.anyOf.map(typeName).join(' | ');
  const type = Array.isArray(schema.type) ? schema.type.join(' | ') : String(schema.type ?? 'any');
  if (schema.items) return `${typeName(schema.items)}[]${type.includes('null') ? ' | null' : ''}`;
  const { minimum, maximum } = schema;
  return minimum === undefined && maximum === undefined ? type : `${type} ${minimum ?? ''}…${maximum ?? ''}`;
}

function html(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
