/** `/`: the chat page for browsers, a word for programs that look who is there (Ollama's, which clients compare). */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ServerApp } from './context.ts';
import { get } from './routes.ts';

const PAGE = fileURLToPath(new URL('../../web/dist/index.html', import.meta.url));

interface FrontPage {
  readonly html: string;
  readonly headers: Record<string, string>;
}

/**
 * The page's policy: of scripts and styles exactly the blocks it was built with, each named by its hash; it talks to this
 * server only, shows no picture from elsewhere, and text becomes markup through its sanitizer alone (Trusted Types).
 */
export function pagePolicy(html: string): string {
  const blocks = [...html.matchAll(/<(script|style)\b[^>]*>([\s\S]*?)<\/\1>/g)];
  const hashes = (wanted: string) =>
    blocks
      .filter(([, tag]) => tag === wanted)
      .map(([, , text]) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`)
      .join(' ') || "'none'";
  return [
    "default-src 'none'",
    `script-src ${hashes('script')}`,
    `style-src ${hashes('style')}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    'trusted-types dompurify',
  ].join('; ');
}

/** Undefined where the page was not built (`npm run build:web`). */
function readPage(): FrontPage | undefined {
  if (!existsSync(PAGE)) return undefined;
  const html = readFileSync(PAGE, 'utf8');
  const headers = {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': pagePolicy(html),
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-cache',
    vary: 'Accept',
  };
  return { html, headers };
}

export function mountFrontPage(app: ServerApp): void {
  const page = readPage();
  get(app, undefined, {
    paths: ['/'],
    tag: 'Operation',
    summary: 'The chat page',
    handle: (request) => {
      if (page === undefined || !request.req.header('accept')?.includes('text/html'))
        return request.text('Ollama is running');
      return new Response(page.html, { headers: page.headers });
    },
  });
  app.get('/favicon.ico', () => new Response(null, { status: 204 }));
}
