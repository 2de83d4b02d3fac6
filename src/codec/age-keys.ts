import { createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { bech32 } from '@scure/base';
import { UsageError } from '../errors.ts';

/** Who can read what is encrypted: an age recipient (X25519), as it stands in a config. */
export interface Recipient {
  readonly publicKey: KeyObject;
  readonly publicBytes: Uint8Array;
}

/** What opens it: an age identity. Its private key lies in OpenSSL's memory, and can be given to a thread. */
export interface Identity extends Recipient {
  readonly privateKey: KeyObject;
  readonly fingerprint: string;
}

const KEY_BYTES = 32;
const RECIPIENT_PREFIX = 'age';
const IDENTITY_PREFIX = 'age-secret-key-';
const FINGERPRINT_DIGITS = 16;

// What stands before the 32 bytes of an X25519 key in DER.
const PUBLIC_DER = Buffer.from('302a300506032b656e032100', 'hex');
const PRIVATE_DER = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** Names a recipient in headers and messages: the first 16 hex digits of its text's SHA-256. */
export const fingerprintOf = (recipient: string) =>
  createHash('sha256').update(recipient).digest('hex').slice(0, FINGERPRINT_DIGITS);

/** Throws UsageError where its checksum does not agree, or it is another kind of key. */
export function parseRecipient(text: string): Recipient {
  const publicBytes = keyIn(text, RECIPIENT_PREFIX);
  if (publicBytes === null) {
    // A private key, put there by mistake, must not get into a log.
    const named = text.startsWith('age1') ? `"${text}"` : 'what stands there';
    throw new UsageError(
      `${named} is no age recipient: its checksum does not agree, or it is of another kind`,
      'copy the whole "age1…" that age-keygen printed as the public key (age-keygen -y KEYFILE prints it again)',
    );
  }
  return { publicBytes, publicKey: publicKeyOf(publicBytes) };
}

/** The keys of an age identity file; empty lines and comments are passed over. Throws UsageError, naming the file only. */
export function parseIdentities(text: string, path: string): Identity[] {
  if (/^(age-encryption\.org\/v1|-----BEGIN AGE)/.test(text)) {
    throw new UsageError(
      `identity file ${path} is itself encrypted`,
      `let age open it: --identity <(age -d ${path}) in bash, or decrypt it to a tmpfs first`,
    );
  }
  const lines = text.split('\n').map((line, index) => ({ line: line.trim(), number: index + 1 }));
  const identities = lines
    .filter(({ line }) => line !== '' && !line.startsWith('#'))
    .map(({ line, number }) => identityOf(line) ?? refuse(path, number));
  if (identities.length > 0) return identities;
  throw new UsageError(`identity file ${path} holds no key`, 'age-keygen -o FILE makes such a file');
}

function refuse(path: string, line: number): never {
  throw new UsageError(
    `line ${line} of identity file ${path} is no age identity`,
    'each line is an "AGE-SECRET-KEY-1…" of age-keygen, a comment or empty; SSH keys and plugins are not supported',
  );
}

function identityOf(line: string): Identity | null {
  const raw = line === line.toUpperCase() ? keyIn(line, IDENTITY_PREFIX) : null;
  if (raw === null) return null;
  const der = Buffer.concat([PRIVATE_DER, raw]);
  const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  raw.fill(0);
  const publicKey = createPublicKey(privateKey);
  const publicBytes = rawOf(publicKey);
  const fingerprint = fingerprintOf(bech32.encodeFromBytes(RECIPIENT_PREFIX, publicBytes));
  return { privateKey, publicKey, publicBytes, fingerprint };
}

/** The bytes of an X25519 public key. */
export const rawOf = (publicKey: KeyObject) =>
  new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }).subarray(PUBLIC_DER.length));

export const publicKeyOf = (bytes: Uint8Array) =>
  createPublicKey({ key: Buffer.concat([PUBLIC_DER, bytes]), format: 'der', type: 'spki' });

function keyIn(text: string, prefix: string): Uint8Array | null {
  const decoded = bech32.decodeUnsafe(text);
  if (decoded?.prefix !== prefix) return null;
  const bytes = bech32.fromWordsUnsafe(decoded.words);
  return bytes instanceof Uint8Array && bytes.length === KEY_BYTES ? bytes : null;
}
