/** What a hub's refusal means and what to do about it. */
import { TandemError } from '../errors.ts';
import type { HubSettings } from './settings.ts';

interface Asked {
  readonly repository: string;
  readonly revision?: string;
  readonly settings: HubSettings;
}

/**
 * The hub says why in `X-Error-Code`: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound. Without a token it hides
 * private repositories behind 401. Undefined: nothing better than the general error.
 */
export async function explainRefusal(
  response: Response,
  { repository, revision, settings }: Asked,
): Promise<TandemError | undefined> {
  const { endpoint, token } = settings;
  const reason = /^\w+$/.exec(response.headers.get('x-error-code') ?? '')?.[0] ?? '';
  const given = `${endpoint} answers ${response.status}${reason === '' ? '' : ` (${reason})`}, ${token === undefined ? 'no token was sent' : 'a token was sent'}`;
  const tokens = `make a token with read rights at ${endpoint}/settings/tokens and set HF_TOKEN`;
  if (reason === 'GatedRepo' || (response.status === 403 && reason === ''))
    return new TandemError('REMOTE_DENIED', {
      room: 'hub',
      rule: `${repository} is gated: its owner lets in who has accepted the terms`,
      given,
      fix:
        token === undefined
          ? `accept them at ${endpoint}/${repository}, ${tokens}`
          : `accept them at ${endpoint}/${repository} with the account of this token; a fine-grained token also needs the right to read gated repositories`,
    });
  if (response.status === 401 && token !== undefined)
    return new TandemError('REMOTE_DENIED', {
      room: 'hub',
      rule: 'the token is a valid one, and the repository exists',
      given: `${repository}: ${given}`,
      fix: `check the name and HF_TOKEN; ${tokens}`,
    });
  if (reason === 'RevisionNotFound')
    return new TandemError('REMOTE_NOT_FOUND', {
      room: 'hub',
      rule: `${repository} has the revision that is asked for`,
      given: `there is no branch, tag or commit ${revision ?? ''}`,
      fix: 'leave @REVISION away for main',
    });
  if (response.status === 401 || response.status === 404)
    return new TandemError('REMOTE_NOT_FOUND', {
      room: 'hub',
      rule: reason === 'EntryNotFound' ? `${repository} has the file` : `${repository} is a model on the hub`,
      given,
      fix: `check the name at ${endpoint}${token === undefined ? `; if it is private, ${tokens}` : ''}`,
    });
  return undefined;
}
