import { codeOf, isError, messageOf, ShipmateError, type Verdict } from '../../errors.ts';

interface Meaning {
  readonly code: string;
  readonly verdict: Verdict;
  readonly hint: string;
}

/** What was tried, and the IAM action that it needs. */
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
const busy = again('STORE_BUSY', 'the store asks to slow down: it is tried again by itself');
const failing = again('STORE_FAILED', 'it is tried again by itself; if it lasts, look at the state of the S3 service');
const corrupt = again(
  'STORE_DAMAGED',
  'a checksum found it, and it is tried again; if it lasts, suspect memory or a proxy that changes bytes',
);

const locked = operator(
  'STORE_LOCKED',
  'object lock (a retention period or a legal hold) keeps the object: it can be deleted once that has ended',
);
/** Servers have no code of their own for it: AWS answers `AccessDenied`, others `InvalidRequest`. */
const LOCK_WORDS = /object[ -]?lock|WORM/i;

const BY_NAME: ReadonlyMap<string, Meaning> = new Map(
  Object.entries({
    SlowDown: busy,
    RequestLimitExceeded: busy,
    Throttling: busy,
    ThrottlingException: busy,
    ServiceUnavailable: busy,
    RequestTimeout: failing,
    BadDigest: corrupt,
    InvalidDigest: corrupt,
    XAmzContentSHA256Mismatch: corrupt,
    XAmzContentChecksumMismatch: corrupt,
    NoSuchBucket: operator('STORE_MISSING', 'create the bucket, or correct "bucket": Shipmate never creates one'),
    InvalidAccessKeyId: operator('STORE_DENIED', 'the access key is unknown to this endpoint: deleted, or of another'),
    SignatureDoesNotMatch: operator('STORE_DENIED', 'the secret key does not belong to the access key'),
    InvalidToken: operator('STORE_DENIED', "the session's token is not one of this endpoint: renew what provides it"),
    ExpiredToken: operator('STORE_DENIED', "the session's credentials have expired: renew what provides them"),
    RequestTimeTooSkewed: operator('STORE_DENIED', "this host's clock is wrong: synchronise it with NTP"),
    CredentialsProviderError: operator(
      'STORE_DENIED',
      'no credentials: attach a role to the instance or pod, or give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a ' +
        'profile (AWS_PROFILE), in the environment of the daemon',
    ),
    InvalidStorageClass: operator('STORE_UNFIT', 'correct "storageClass" in the config'),
    PermanentRedirect: operator('STORE_UNFIT', 'the bucket is in another region: correct "region" in the config'),
    AuthorizationHeaderMalformed: operator('STORE_UNFIT', 'correct "region" in the config: it is not the bucket\'s'),
    InvalidBucketName: operator('STORE_UNFIT', 'correct "bucket" in the config'),
    NotImplemented: operator('STORE_UNFIT', 'the endpoint does not know what is asked of it: is it an S3 store?'),
  }),
);

/** The server's or the SDK's word for a failure, such as `AccessDenied`. */
export function nameOf(error: unknown): string {
  if (!isError(error)) return '';
  return 'Code' in error && typeof error.Code === 'string' ? error.Code : error.name;
}

/** The HTTP status of an answer that was a refusal; 0 where no answer came. */
export function statusOf(error: unknown): number {
  if (!isError(error) || !('$metadata' in error)) return 0;
  const metadata: unknown = error.$metadata;
  const isKnown = typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata;
  return isKnown && typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
}

/** The name is taken. */
export const isTaken = (error: unknown) => statusOf(error) === 412;
/** Another creation of the name was under way: it may have succeeded or not. */
export const isConflict = (error: unknown) => nameOf(error) === 'ConditionalRequestConflict';
export const isAbsent = (error: unknown) => nameOf(error) === 'NoSuchKey';
/** A range that begins at the object's end, or beyond. */
export const isBeyondEnd = (error: unknown) => statusOf(error) === 416;

const OLD_CREDENTIALS = new Set(['InvalidAccessKeyId', 'SignatureDoesNotMatch', 'ExpiredToken', 'InvalidToken']);

/** Whether others may be accepted: a key was rotated, or a session has ended. */
export const isCredentialsRefused = (error: unknown) => OLD_CREDENTIALS.has(nameOf(error));

/** What a failure means to a store, in the operator's words. */
export function failure(store: string, action: Action, cause: unknown): ShipmateError {
  if (cause instanceof ShipmateError) return cause;
  const status = statusOf(cause);
  const said = [status || '', nameOf(cause), wordsOf(cause)].filter((part) => part !== '').join(' ');
  return new ShipmateError(`store ${store}: can't ${action.what}: ${said}`, { ...meaningOf(action, cause), cause });
}

function meaningOf({ right }: Action, cause: unknown): Meaning {
  const known = BY_NAME.get(nameOf(cause));
  if (known) return known;
  if (LOCK_WORDS.test(`${nameOf(cause)} ${messageOf(cause)}`)) return locked;
  const status = statusOf(cause);
  if (status === 0) return /region is missing/i.test(messageOf(cause)) ? noRegion : unreachable(cause);
  if (status === 429 || status === 503) return busy;
  if (status === 401 || status === 403) {
    return operator('STORE_DENIED', `grant this account ${right} on the bucket (docs/stores.md has a policy with all)`);
  }
  if (status === 301 || status === 307) return BY_NAME.get('PermanentRedirect')!;
  return failing;
}

const noRegion = operator('STORE_UNFIT', 'give "region" in the config, or AWS_REGION in the environment');

function unreachable(cause: unknown): Meaning {
  const isCertificate = /^(CERT_|ERR_TLS_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(codeOf(cause) ?? '');
  const hint =
    "the endpoint's certificate is not trusted here: NODE_EXTRA_CA_CERTS names a file of further authorities";
  return isCertificate ? { ...down, hint } : down;
}

/** An AggregateError, of all addresses that were tried, has no message of its own; the SDK says where it knows nothing. */
function wordsOf(cause: unknown): string {
  const text = messageOf(cause) || codeOf(cause) || '';
  return text === 'UnknownError' ? '' : text.replace(/\s+/g, ' ').slice(0, 300);
}

export function tooSlow(store: string, { what }: Action, waitedMs: number): ShipmateError {
  return new ShipmateError(`store ${store}: can't ${what}: nothing came for ${Math.round(waitedMs / 1_000)} s`, down);
}

/** A conditional creation that ended as if it had met another, of which nothing is to be seen. */
export function conflict(store: string, key: string): ShipmateError {
  return new ShipmateError(`store ${store}: creating ${key} met another request for it`, busy);
}

export function tooLarge(store: string, key: string, maxBytes: number): ShipmateError {
  return new ShipmateError(
    `store ${store}: ${key} has more than ${maxBytes >> 20} MiB, and this server ignores If-None-Match where an upload of several parts ends`,
    operator('STORE_UNFIT', 'a server that honours it there is needed for objects of this size'),
  );
}

/** A listing that ends amid the objects must not be taken for all of them. */
export function endless(store: string, { what }: Action): ShipmateError {
  return new ShipmateError(
    `store ${store}: can't ${what}: there is more, and the answer does not say where it goes on`,
    operator('STORE_UNFIT', 'the endpoint does not know ListObjectsV2 of the S3 protocol: is it up to date?'),
  );
}
