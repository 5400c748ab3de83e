/** `/`: the chat page for browsers, a word for programs that look who is there (Ollama's, which clients compare). */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ServerApp } from './context.ts';

const PAGE = fileURLToPath(new URL('../../web/dist/index.html', import.meta.url));

/** Everything is in the page: scripts and styles inline, named by their hashes; it talks to this server only. */
const CSP =
  "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export function mountFrontPage(app: ServerApp): void {
  app.get('/', (request) => {
    const wanted = request.req.header('accept')?.includes('text/html') === true && existsSync(PAGE);
    if (!wanted) return request.text('Ollama is running');
    return new Response(readFileSync(PAGE, 'utf8'), {
      headers: {
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': CSP,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
      },
    });
  });
  app.get('/favicon.ico', () => new Response(null, { status: 204 }));
}
