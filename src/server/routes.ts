/** Registers a route with its page in the reference: one declaration serves the router, the validator and the docs. */
import { z } from '@hono/zod-openapi';
import { readBody } from './body.ts';
import type { Dialect, ServerApp, ServerContext, ServerRequest } from './context.ts';

export interface RouteText {
  /** All are served, the first one is documented and names the others. Parameters as `{name}`. */
  readonly paths: readonly string[];
  readonly summary: string;
  readonly tag: string;
}

export interface PostRoute<T extends z.ZodType> extends RouteText {
  readonly body: T;
  /** Default `post`. */
  readonly method?: 'post' | 'delete';
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
  const { method = 'post' } = route;
  document(app, method, route, { body: { content: { 'application/json': { schema: route.body } } } });
  for (const path of route.paths)
    app.on(method.toUpperCase(), honoPath(path), async (request) => {
      request.get('facts').dialect = dialect.name;
      return route.handle(request, await readBody(request, route.body, server.options.bodyBytes));
    });
}

/** A route of the server itself has no dialect. */
export function get(app: ServerApp, dialect: Dialect | undefined, route: GetRoute): void {
  const names = [...route.paths[0].matchAll(/\{(\w+)\}/g)].map(([, name]) => [name, z.string()] as const);
  document(app, 'get', route, names.length > 0 ? { params: z.object(Object.fromEntries(names)) } : {});
  for (const path of route.paths)
    app.get(honoPath(path), (request) => {
      request.get('facts').dialect = dialect?.name;
      return route.handle(request);
    });
}

function document(
  app: ServerApp,
  method: 'get' | 'post' | 'delete',
  { paths: [path, ...others], tag, summary }: RouteText,
  request: object,
): void {
  app.openAPIRegistry.registerPath({
    method,
    path,
    tags: [tag],
    summary,
    ...(others.length > 0 ? { description: `Also at ${others.join(', ')}.` } : {}),
    request,
    responses: { 200: { description: 'the answer' }, default: { description: 'an error in the form of this API' } },
  });
}

function honoPath(path: string): string {
  return path.replace(/\{(\w+)\}/g, ':$1');
}
