import { codeOf, isError, messageOf, ShipmateError, type Verdict } from '../../errors.ts';

interface Meaning {
  readonly code: string;
  readonly verdict: Verdict;
  readonly hint: string;
}

/** An answer that is not what was hoped for. */
export interface Refusal {
  readonly status: number;
  /** Google's word for it, such as `forbidden`; empty where it gave none. */
  readonly reason: string;
  readonly message: string;
}

const down: Meaning = {
  code: 'STORE_DOWN',
  verdict: 'retry',
  hint: 'look at the network, DNS, proxies and firewalls between this host and the endpoint; it is tried again by itself',
};
const busy: Meaning = {
  code: 'STORE_BUSY',
  verdict: 'retry',
  hint: 'Google asks to slow down: it is tried again by itself; if it lasts, look at the quotas of the project',
};
const failing: Meaning = {
  code: 'STORE_FAILED',
  verdict: 'retry',
  hint: 'it is tried again by itself; if it lasts, look at the status page of Google Cloud, or at the emulator',
};
const corrupt: Meaning = {
  code: 'STORE_DAMAGED',
  verdict: 'retry',
  hint: 'the checksum found it, and it is tried again; if it lasts, suspect memory or a proxy that changes bytes',
};
const denied = (hint: string): Meaning => ({ code: 'STORE_DENIED', verdict: 'fatal', hint });
/** Not for want of a right: it passes when the retention ends, or the hold is lifted. */
const locked: Meaning = {
  code: 'STORE_LOCKED',
  verdict: 'fatal',
  hint: "the bucket's retention policy or a hold keeps the object: it can be deleted once that has ended",
};
const unfit = (hint: string): Meaning => ({ code: 'STORE_UNFIT', verdict: 'fatal', hint });

const RATE_LIMITS = new Set(['rateLimitExceeded', 'userRateLimitExceeded', 'quotaExceeded', 'dailyLimitExceeded']);

/** What an answer of the JSON API means to a store, in the operator's words. */
export function refused(store: string, action: string, refusal: Refusal): ShipmateError {
  const { status, reason, message } = refusal;
  const said = `${status}${reason && ` ${reason}`}: ${message || 'no explanation'}`;
  return new ShipmateError(`store ${store}: can't ${action}: ${said}`, meaningOf(refusal));
}

function meaningOf(refusal: Refusal): Meaning {
  const { status, reason, message } = refusal;
  if (status === 429 || RATE_LIMITS.has(reason)) return busy;
  if (status === 503) return busy;
  if (status >= 500 || status === 408 || status === 409 || status === 410) return failing;
  switch (status) {
    case 400:
      return badRequest(refusal);
    case 401:
      return denied('the credentials are not accepted: expired, revoked, of a deleted account, or this clock is wrong');
    case 403:
      return forbidden(refusal);
    case 404:
      return isNoBucket(refusal) ? noBucket : failing;
    default:
      return /captive|login/i.test(reason + message) ? down : failing;
  }
}

const noBucket: Meaning = {
  code: 'STORE_MISSING',
  verdict: 'fatal',
  hint: 'create the bucket, or correct "bucket" in the config: Shipmate never creates one',
};

function badRequest({ message }: Refusal): Meaning {
  if (/doesn't match calculated|CRC32C|MD5/i.test(message)) return corrupt;
  if (/user project|requester pays/i.test(message)) {
    return unfit('turn Requester Pays off, or give the credentials a quota project that pays');
  }
  if (/storage ?class/i.test(message)) return unfit('correct "storageClass" in the config');
  return unfit('the endpoint does not understand what every GCS bucket does: is "apiEndpoint" right?');
}

const PERMISSION = /\b(storage\.[a-z]+\.[a-zA-Z]+)\b/;

function forbidden({ reason, message }: Refusal): Meaning {
  if (isLock(reason)) return locked;
  if (/kms/i.test(message)) {
    return denied("the bucket's storage service agent needs roles/cloudkms.cryptoKeyEncrypterDecrypter on its key");
  }
  if (/scope/i.test(reason + message)) {
    return denied('the access scopes of this VM are too narrow: it needs cloud-platform or devstorage.read_write');
  }
  if (/billing|delinquent|accountDisabled/i.test(reason + message)) {
    return denied("look at the project's billing account: Google refuses all access until it is in order");
  }
  const permission = PERMISSION.exec(message)?.[1];
  const needed = permission ?? 'storage.objects.create, storage.objects.get and storage.objects.list';
  return denied(`grant this account ${needed} on the bucket (docs/stores.md has a role with what is needed)`);
}

/** Google says so also where an object in the bucket was asked for. */
export const isNoBucket = ({ status, message }: Refusal) =>
  status === 404 && /bucket does not exist|bucket .*not (be )?found/i.test(message);

const isLock = (reason: string) => reason === 'retentionPolicyNotMet' || reason === 'objectUnderActiveHold';

/**
 * Whether a creation was refused because the name is taken: the precondition, or a right that only overwriting needs and
 * that may be looked at first.
 */
export const isTaken = ({ status, reason, message }: Refusal) =>
  status === 412 || (status === 403 && (/\bstorage\.objects\.delete\b/.test(message) || isLock(reason)));

const CERTIFICATE = /^(CERT_|ERR_TLS_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/;

/** What came instead of an answer. */
export function unreachable(store: string, action: string, cause: unknown): ShipmateError {
  const isCertificate = CERTIFICATE.test(codeOf(cause) ?? '');
  const hint = isCertificate
    ? "the endpoint's certificate is not trusted here: NODE_EXTRA_CA_CERTS names a file of further authorities"
    : down.hint;
  return new ShipmateError(`store ${store}: can't ${action}: ${rootOf(cause)}`, { ...down, hint, cause });
}

/** An AggregateError, of all addresses that were tried, has no message of its own. */
function rootOf(error: unknown): string {
  return messageOf(error) || codeOf(error) || (isError(error) ? error.name : 'no reason given');
}

export function tooSlow(store: string, action: string, what: string): ShipmateError {
  return new ShipmateError(`store ${store}: can't ${action}: ${what}`, down);
}

export function damaged(store: string, key: string): ShipmateError {
  return new ShipmateError(`store ${store}: the bytes of ${key} do not fit its CRC32C`, corrupt);
}

export function unexpected(store: string, action: string, what: string): ShipmateError {
  return new ShipmateError(`store ${store}: can't ${action}: ${what}`, failing);
}

export function noCredentials(store: string, why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`store ${store}: no credentials for Google Cloud: ${why}`, {
    ...denied(
      'on Google Cloud attach a service account to the VM or pod; elsewhere use workload identity federation ' +
        '(GOOGLE_APPLICATION_CREDENTIALS) or "keyFile" in the config',
    ),
    cause,
  });
}

/** The credentials are there, but what turns them into a token does not answer. */
export function noToken(store: string, cause: unknown): ShipmateError {
  return new ShipmateError(`store ${store}: can't get an access token: ${rootOf(cause)}`, {
    ...down,
    hint: "look at the network between this host and the metadata server or Google's token service",
  });
}
