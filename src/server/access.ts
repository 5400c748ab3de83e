/** Who may talk to the server: host names (DNS rebinding), origins of browsers (CORS), API keys. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { TandemError } from '../errors.ts';
import type { ServerOptions } from './context.ts';

/** True for `localhost`, its subdomains and loopback addresses. */
function isLocal(hostname: string): boolean {
  return (
    hostname === 'localhost' ||
    hostname.endsWith('.localhost') ||
    hostname === '::1' ||
    /^127(\.\d{1,3}){3}$/.test(hostname)
  );
}

/** Host part of a Host header, without port and brackets, lower case; undefined where it is no host. */
export function hostname(header: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/i.exec(header);
  return match === null ? undefined : (match[1] ?? match[2]).toLowerCase();
}

/**
 * A page of another site can make a browser call this server under a name it owns (DNS rebinding). Addresses, localhost
 * and the name the server was told to listen on are answered; other names have to be allowed. Browsers always name a host:
 * who names none is a probe that speaks HTTP/1.0.
 */
export function checkHost(header: string | undefined, options: Pick<ServerOptions, 'allowedHosts' | 'host'>): void {
  if (header === undefined || options.allowedHosts.includes('*')) return;
  const name = hostname(header);
  if (name !== undefined) {
    const allowed = [...options.allowedHosts, options.host].map((host) => host.toLowerCase());
    if (isLocal(name) || isIP(name) !== 0 || allowed.includes(name)) return;
  }
  throw new TandemError('ORIGIN_DENIED', {
    room: 'server',
    rule: 'the Host header is an address, localhost or an allowed name',
    given: name === undefined ? 'it is malformed' : `it is ${name}`,
    fix: 'start the server with --allowed-host NAME, or * for any',
  });
}

/** The value of Access-Control-Allow-Origin for a browser's Origin; undefined: the browser may not read the answer. */
export function allowedOrigin(origin: string | undefined, allowed: readonly string[]): string | undefined {
  if (origin === undefined) return undefined;
  if (allowed.includes('*')) return '*';
  if (allowed.includes(origin)) return origin;
  if (!allowed.includes('localhost') || !URL.canParse(origin)) return undefined;
  return isLocal(new URL(origin).hostname.replace(/^\[|\]$/g, '')) ? origin : undefined;
}

/**
 * A page of any site can make a browser send text here without asking first (no preflight). It cannot read the answer, but the
 * request would run; browsers tell what it is. On plain http outside localhost they leave that header out: there the Origin is
 * held against the Host.
 */
export function checkSite(header: (name: string) => string | undefined, allowed: readonly string[]): void {
  const origin = header('origin');
  if (origin === undefined || !/^(https?:|null$)/.test(origin) || !isCrossSite(origin, header)) return;
  if (allowedOrigin(origin, allowed) !== undefined) return;
  throw new TandemError('ORIGIN_DENIED', {
    room: 'server',
    rule: 'pages of other sites ask from an allowed origin',
    given: `this one is of ${origin.slice(0, 100)}`,
    fix: 'start the server with --cors ORIGIN, or * for any',
  });
}

function isCrossSite(origin: string, header: (name: string) => string | undefined): boolean {
  const told = header('sec-fetch-site');
  return told === undefined ? origin.replace(/^https?:\/\//, '') !== header('host') : told === 'cross-site';
}

/** Checks a key in constant time. Without configured keys anything goes, also none. */
export function checkKey(header: (name: string) => string | undefined, keys: readonly string[]): void {
  if (keys.length === 0) return;
  const given = header('authorization')?.match(/^Bearer\s+(.+)$/i)?.[1] ?? header('x-api-key') ?? header('api-key');
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const wanted = digest(given ?? '');
  let good = false;
  for (const key of keys) good = timingSafeEqual(wanted, digest(key)) || good;
  if (given !== undefined && good) return;
  throw new TandemError('ACCESS_DENIED', {
    room: 'server',
    rule: 'a request carries a valid API key',
    given: given === undefined ? 'it carries none' : 'the key is not one of this server',
    fix: 'send Authorization: Bearer KEY, or x-api-key: KEY',
  });
}
