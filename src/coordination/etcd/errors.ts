import {
  ClientClosedError,
  EtcdAuthenticationFailedError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  isRecoverableError,
} from 'etcd3';
import { isError, messageOf, ShipmateError } from '../../errors.ts';

export const UNREACHABLE = 'ETCD_UNREACHABLE';
const LEASE_GONE = 'ETCD_LEASE_GONE';

/** No answer in time. */
export class NoAnswer extends Error {}

/** Whether etcd did not decide, so that another member, or a later attempt, may. */
export function isUndecided(error: unknown): boolean {
  if (error instanceof NoAnswer || error instanceof ClientClosedError) return true;
  return isError(error) && isRecoverableError(error) && !isFull(error);
}

/** Whether a call's deadline passed before etcd answered. */
export const isLate = (error: unknown) => /DEADLINE_EXCEEDED/.test(messageOf(error));

/** What a refused token is called between an endpoint's connection and its `run`. */
export const LOGIN_LOST = 'the login was lost';

/** Whether a new token may help: the old one ran out, or users and roles were changed. */
export function isLoginLost(error: unknown): boolean {
  return /the login was lost|auth store is old|revision in header is old|user name is empty/.test(messageOf(error));
}

export const isLoginNeedless = (error: unknown) => /authentication is not enabled/.test(messageOf(error));
const isFull = (error: Error) => /database space exceeded/.test(error.message);

export const isLeaseGone = (error: unknown) => error instanceof ShipmateError && error.code === LEASE_GONE;
export const isUnreachable = (error: unknown) => error instanceof ShipmateError && error.code === UNREACHABLE;

/** An answer of etcd that is a refusal, in Shipmate's words. All may pass: an operator mends them at etcd. */
export function refusal(cause: unknown, { user, root }: { user: string | undefined; root: string }): ShipmateError {
  const retry = (code: string, message: string, hint?: string) =>
    new ShipmateError(message, { code, hint, verdict: 'retry', cause });

  if (cause instanceof EtcdLeaseInvalidError) return retry(LEASE_GONE, "etcd does not know this node's lease any more");
  if (cause instanceof EtcdPermissionDeniedError) {
    return retry(
      'ETCD_DENIED',
      `etcd denies ${user ? `the user "${user}"` : 'anonymous clients'} access to ${root}`,
      `grant a role of that user readwrite on the prefix ${root}`,
    );
  }
  if (cause instanceof EtcdAuthenticationFailedError || isLoginLost(cause)) {
    return user
      ? retry('ETCD_LOGIN_REFUSED', `etcd refuses the user "${user}"`, 'check etcd\'s "username" and "passwordFile"')
      : retry('ETCD_LOGIN_REFUSED', 'etcd demands a user and a password', 'set etcd\'s "username" and "passwordFile"');
  }
  if (isError(cause) && isFull(cause)) {
    return retry(
      'ETCD_FULL',
      'etcd takes no more writes: its database reached its quota',
      'compact and defragment etcd, then run "etcdctl alarm disarm"',
    );
  }
  return retry('ETCD_FAILED', `etcd answered with an error: ${plain(cause)}`);
}

/** `attempts`: what each endpoint said. */
export function unreachable(attempts: readonly { endpoint: string; error: unknown; hint: string | null }[]) {
  const told = attempts.map(({ endpoint, error }) => `${endpoint} (${plain(error)})`).join(', ');
  const hints = [...new Set(attempts.flatMap(({ hint }) => hint ?? []))];
  return new ShipmateError(`etcd can't be reached at ${told}`, {
    code: UNREACHABLE,
    hint: hints.length > 0 ? hints.join('; ') : 'check that etcd runs, has a quorum, and that its endpoints are right',
    verdict: 'retry',
    cause: attempts.at(-1)?.error,
  });
}

/** Without the name of the class and gRPC's numbers, which etcd3 puts before the message. */
function plain(error: unknown): string {
  const message = messageOf(error).replace(/^(?:\w+Error: )?(?:\d+ )?(?:UNAVAILABLE: |DEADLINE_EXCEEDED: )?/, '');
  return message.replace(/^No connection established\. Last error: /, '').replace(/\. ?Resolution note: *$/, '');
}
