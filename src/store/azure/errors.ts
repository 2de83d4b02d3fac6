import { codeOf, isError, messageOf, ShipmateError, type Verdict } from '../../errors.ts';

interface Meaning {
  readonly code: string;
  readonly verdict: Verdict;
  readonly hint: string;
}

/** What was tried, and the data action below `…/containers/blobs/` that it needs. */
export interface Action {
  /** `create orders/stream.json`. */
  readonly what: string;
  readonly right: string;
}

const again = (code: string, hint: string): Meaning => ({ code, verdict: 'retry', hint });
const operator = (code: string, hint: string): Meaning => ({ code, verdict: 'fatal', hint });

const down = again(
  'STORE_DOWN',
  'look at the network, DNS, proxies and firewalls between this host and the endpoint; it is tried again by itself',
);
const busy = again('STORE_BUSY', 'Azure asks to slow down: it is tried again by itself');
const failing = again('STORE_FAILED', 'it is tried again by itself; if it lasts, look at the status page of Azure');
const corrupt = again(
  'STORE_DAMAGED',
  'a checksum found it, and it is tried again; if it lasts, suspect memory or a proxy that changes bytes',
);
const noCredentials = operator(
  'STORE_DENIED',
  'no credentials: give the VM or pod a managed or workload identity, or the environment AZURE_CLIENT_ID, ' +
    'AZURE_TENANT_ID and a secret or certificate, or the config "connectionStringFile"',
);

const locked = operator(
  'STORE_LOCKED',
  'an immutability policy or a legal hold keeps the blob: it can be deleted once that has ended',
);

const BY_CODE: ReadonlyMap<string, Meaning> = new Map(
  Object.entries({
    ServerBusy: busy,
    OperationTimedOut: failing,
    Md5Mismatch: corrupt,
    InvalidMd5: corrupt,
    Crc64Mismatch: corrupt,
    BlobImmutableDueToPolicy: locked,
    BlobImmutableDueToLegalHold: locked,
    ContainerNotFound: operator('STORE_MISSING', 'create the container, or correct "container": Shipmate never does'),
    ContainerBeingDeleted: operator('STORE_MISSING', 'the container is being deleted'),
    AccountIsDisabled: operator('STORE_DENIED', 'the storage account is disabled'),
    AuthenticationFailed: operator(
      'STORE_DENIED',
      "the credentials are not accepted: an account key that was rotated, another account's, or this clock is wrong",
    ),
    AuthorizationFailure: operator(
      'STORE_DENIED',
      "the storage account's firewall does not let this host in, or its settings forbid this way to authenticate",
    ),
    BlobAccessTierNotSupportedForAccountType: operator('STORE_UNFIT', 'this account has no tiers: drop "accessTier"'),
    InvalidHeaderValue: operator('STORE_UNFIT', 'the endpoint does not understand what is asked: is it up to date?'),
  }),
);

/** Azure's word for a refusal, such as `BlobAlreadyExists`. */
export function reasonOf(error: unknown): string {
  return codeOf(error) ?? (isError(error) ? error.name : '');
}

/** The HTTP status of an answer that was a refusal; 0 where no answer came. */
export function statusOf(error: unknown): number {
  return isError(error) && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 0;
}

const TAKEN = new Set([
  'BlobAlreadyExists',
  'ConditionNotMet',
  'UnauthorizedBlobOverwrite',
  'BlobImmutableDueToPolicy',
  'BlobImmutableDueToLegalHold',
]);

/** The name is taken, or a right that only overwriting needs was looked at first. */
export const isTaken = (error: unknown) => TAKEN.has(reasonOf(error));
/** Staged blocks are gone once another's creation of the name succeeded. */
export const isBlocksGone = (error: unknown) => reasonOf(error) === 'InvalidBlockList';
export const isAbsent = (error: unknown) => reasonOf(error) === 'BlobNotFound';
/** Whether others may be accepted, those of a key that was rotated; Azurite has the second word for it. */
export const isCredentialsRefused = (error: unknown) =>
  ['AuthenticationFailed', 'AuthorizationFailure'].includes(reasonOf(error));
/** A range that begins at the object's end, or beyond. */
export const isBeyondEnd = (error: unknown) => statusOf(error) === 416;

/** What a failure means to a store, in the operator's words. */
export function failure(store: string, action: Action, cause: unknown): ShipmateError {
  if (cause instanceof ShipmateError) return cause;
  const said = [statusOf(cause) || '', reasonOf(cause), firstLineOf(cause)].filter((part) => part !== '').join(' ');
  return new ShipmateError(`store ${store}: can't ${action.what}: ${said}`, { ...meaningOf(action, cause), cause });
}

function meaningOf({ right }: Action, cause: unknown): Meaning {
  const known = BY_CODE.get(reasonOf(cause));
  if (known) return known;
  if (isError(cause) && /Authentication|CredentialUnavailable/.test(cause.name)) return noCredentials;
  const status = statusOf(cause);
  if (status === 0) return down;
  if (status === 429 || status === 503) return busy;
  if (status === 401 || status === 403) {
    const action = `Microsoft.Storage/storageAccounts/blobServices/containers/blobs/${right}`;
    return operator(
      'STORE_DENIED',
      `grant this identity ${action} on the container (docs/stores.md has a role with all)`,
    );
  }
  return failing;
}

/** What follows in Azure's messages are ids and times. */
const firstLineOf = (cause: unknown) => (messageOf(cause).split('\n')[0] ?? '').slice(0, 300);

export function tooSlow(store: string, { what }: Action, waitedMs: number): ShipmateError {
  return new ShipmateError(`store ${store}: can't ${what}: nothing came for ${Math.round(waitedMs / 1_000)} s`, down);
}

export function noConnectionString(store: string, why: string): ShipmateError {
  return new ShipmateError(`store ${store}: ${why}`, {
    code: 'STORE_DENIED',
    hint: '"connectionStringFile" names a file whose first line is a connection string of the storage account',
  });
}
