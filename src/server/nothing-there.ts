/** What is told of a path that is no route, or not with this method. */
import { TandemError } from '../errors.ts';
import type { ServerApp, ServerRequest } from './context.ts';

/** Methods a path has; none where it is no route. */
export function methodsOf(app: ServerApp, path: string): string[] {
  // The first handler of every match is what all requests pass.
  const has = (method: string) => app.router.match(method, path)[0].length > 1;
  return ['GET', 'POST', 'DELETE'].filter(has).flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]));
}

export function nothingThere({ req: { method, path } }: ServerRequest, allowed: readonly string[]): TandemError {
  const shown = `${method} ${path.length > 100 ? `${path.slice(0, 100)}…` : path}`;
  if (allowed.length > 0)
    return new TandemError('METHOD_UNKNOWN', {
      room: 'server',
      rule: 'a route is asked with a method it has',
      given: shown,
      fix: `use ${allowed.join(' or ')}`,
    });
  return new TandemError('ROUTE_UNKNOWN', {
    room: 'server',
    rule: 'a request goes to a route of this server',
    given: `${shown} is none`,
    fix: 'see /docs for all routes',
  });
}
