/** Registers a route with its page in the reference: one declaration serves the router, the validator and the docs. */
import type { z } from '@hono/zod-openapi';
import { readBody } from './body.ts';
import type { Dialect, ServerApp, ServerContext, ServerRequest } from './context.ts';

export interface RouteText {
  /** First path is documented; all are served. Parameters as `{name}`. */
  readonly paths: readonly string[];
  readonly summary: string;
  readonly tag: string;
}

export interface PostRoute<T extends z.ZodType> extends RouteText {
  readonly body: T;
  handle(request: ServerRequest, body: z.output<T>): Response | Promise<Response>;
}

export interface GetRoute extends RouteText {
  handle(request: ServerRequest): Response | Promise<Response>;
}

export function post<T extends z.ZodType>(
  app: ServerApp,
  server: ServerContext,
  dialect: Dialect,
  route: PostRoute<T>,
): void {
  document(app, 'post', route, { body: { content: { 'application/json': { schema: route.body } } } });
  for (const path of route.paths)
    app.post(honoPath(path), async (request) => {
      request.get('facts').dialect = dialect.name;
      return route.handle(request, await readBody(request, route.body, server.options.bodyBytes));
    });
}

export function get(app: ServerApp, dialect: Dialect, route: GetRoute): void {
  document(app, 'get', route, {});
  for (const path of route.paths)
    app.get(honoPath(path), (request) => {
      request.get('facts').dialect = dialect.name;
      return route.handle(request);
    });
}

function document(app: ServerApp, method: 'get' | 'post', route: RouteText, request: object): void {
  app.openAPIRegistry.registerPath({
    method,
    path: route.paths[0],
    tags: [route.tag],
    summary: route.summary,
    request,
    responses: { 200: { description: 'the answer' }, default: { description: 'an error in the form of this API' } },
  });
}

function honoPath(path: string): string {
  return path.replace(/\{(\w+)\}/g, ':$1');
}
