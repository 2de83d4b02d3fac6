/**
 * The age file format, version 1 (age-encryption.org/v1): X25519 recipients, the payload in pieces of 64 KiB under
 * ChaCha20-Poly1305. Written here on OpenSSL, since the library, which is plain JavaScript, would take longer than
 * compression; each reads what the other wrote, and so does the age program.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { type Identity, publicKeyOf, type Recipient, rawOf } from './age-keys.ts';

const INTRO = 'age-encryption.org/v1\n';
const X25519 = 'X25519';
const MAC_START = '---';
const FILE_KEY_BYTES = 16;
const PAYLOAD_NONCE_BYTES = 16;
const PIECE_BYTES = 64 * 1024;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
/** Of a nonce's bytes the one that tells the last piece. */
const LAST_FLAG = NONCE_BYTES - 1;
const CIPHER = 'chacha20-poly1305';
/** No header with recipients comes near this. */
const MAX_HEADER_BYTES = 64 * 1024;

/** The age file of these bytes for all of the recipients, behind `roomBytes` that are left free in its buffer. */
export function encryptAge(
  plain: Uint8Array,
  recipients: readonly Recipient[],
  roomBytes: number,
): Uint8Array<ArrayBuffer> {
  const fileKey = randomBytes(FILE_KEY_BYTES);
  const header = headerFor(fileKey, recipients);
  const nonce = randomBytes(PAYLOAD_NONCE_BYTES);
  const key = derive(fileKey, nonce, 'payload');
  fileKey.fill(0);

  const pieces = Math.max(1, Math.ceil(plain.length / PIECE_BYTES));
  const sizeBytes = header.length + nonce.length + plain.length + pieces * TAG_BYTES;
  const file = new Uint8Array(new ArrayBuffer(roomBytes + sizeBytes), roomBytes);
  file.set(header);
  file.set(nonce, header.length);
  let at = header.length + nonce.length;
  for (let piece = 0; piece < pieces; piece++) {
    const cipher = createCipheriv(CIPHER, key, nonceOf(piece, piece === pieces - 1), { authTagLength: TAG_BYTES });
    const sealed = cipher.update(plain.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES));
    cipher.final();
    file.set(sealed, at);
    file.set(cipher.getAuthTag(), at + sealed.length);
    at += sealed.length + TAG_BYTES;
  }
  key.fill(0);
  return file;
}

/** The file's plain bytes; null where none of the identities opens it. Throws RangeError where it is torn or was changed. */
export function decryptAge(file: Uint8Array, identities: readonly Identity[]): Uint8Array<ArrayBuffer> | null {
  const { stanzas, macced, mac, end } = readHeader(file);
  const fileKey = unwrap(stanzas, identities);
  if (fileKey === null) return null;
  if (!timingSafeEqual(macOf(fileKey, macced), mac)) throw new RangeError("the age header's MAC does not agree");
  const payloadAt = end + PAYLOAD_NONCE_BYTES;
  const payload = file.subarray(payloadAt);
  const pieces = Math.ceil(payload.length / (PIECE_BYTES + TAG_BYTES));
  if (payload.length < pieces * TAG_BYTES || pieces === 0) throw new RangeError('the age payload is cut short');
  const key = derive(fileKey, file.subarray(end, payloadAt), 'payload');
  fileKey.fill(0);
  try {
    const plain = new Uint8Array(payload.length - pieces * TAG_BYTES);
    for (let piece = 0; piece < pieces; piece++) {
      const start = piece * (PIECE_BYTES + TAG_BYTES);
      const sealed = payload.subarray(start, start + PIECE_BYTES + TAG_BYTES);
      const nonce = nonceOf(piece, piece === pieces - 1);
      plain.set(open(key, nonce, sealed) ?? fail(piece), piece * PIECE_BYTES);
    }
    return plain;
  } finally {
    key.fill(0);
  }
}

function fail(piece: number): never {
  throw new RangeError(`piece ${piece} of the age payload was changed`);
}

function headerFor(fileKey: Uint8Array, recipients: readonly Recipient[]): Buffer {
  const stanzas = recipients.map((recipient) => {
    const ephemeral = generateKeyPairSync('x25519');
    const share = rawOf(ephemeral.publicKey);
    const key = wrappingKey(ephemeral.privateKey, recipient.publicKey, [share, recipient.publicBytes]);
    const cipher = createCipheriv(CIPHER, key, Buffer.alloc(NONCE_BYTES), { authTagLength: TAG_BYTES });
    const wrapped = Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()]);
    key.fill(0);
    return `-> ${X25519} ${base64(share)}\n${base64(wrapped)}\n`;
  });
  const macced = INTRO + stanzas.join('') + MAC_START;
  return Buffer.from(`${macced} ${base64(macOf(fileKey, Buffer.from(macced)))}\n`);
}

interface Stanza {
  readonly type: string;
  readonly args: readonly string[];
  readonly body: Buffer;
}

interface AgeHeader {
  readonly stanzas: readonly Stanza[];
  readonly macced: Uint8Array;
  readonly mac: Buffer;
  /** Where the payload's nonce begins. */
  readonly end: number;
}

function readHeader(file: Uint8Array): AgeHeader {
  const start = Buffer.from(file.buffer, file.byteOffset, Math.min(file.length, MAX_HEADER_BYTES));
  const macAt = start.indexOf(`\n${MAC_START} `) + 1;
  const end = start.indexOf('\n', macAt) + 1;
  const text = start.toString('latin1', 0, Math.max(0, end - 1));
  if (!text.startsWith(INTRO) || macAt === 0 || end === 0) throw new RangeError('it does not begin like an age file');
  const stanzas: { type: string; args: string[]; body: string }[] = [];
  for (const line of text.slice(INTRO.length, macAt - 1).split('\n')) {
    const [type = '', ...args] = line.startsWith('-> ') ? line.slice(3).split(' ') : [];
    if (type !== '') stanzas.push({ type, args, body: '' });
    else if (stanzas.length > 0) stanzas.at(-1)!.body += line;
  }
  const macText = text.slice(macAt + MAC_START.length + 1);
  const mac = Buffer.from(macText, 'base64');
  const macced = start.subarray(0, macAt + MAC_START.length);
  // All that stands before it is proven by it, but nothing else proves how it is written.
  if (mac.length !== 32 || base64(mac) !== macText) throw new RangeError('its age header is torn');
  return { stanzas: stanzas.map((each) => ({ ...each, body: Buffer.from(each.body, 'base64') })), macced, mac, end };
}

/** The file's key, by the first stanza that one of the identities opens. */
function unwrap(stanzas: readonly Stanza[], identities: readonly Identity[]): Buffer | null {
  for (const { type, args, body } of stanzas) {
    const share = Buffer.from(args[0] ?? '', 'base64');
    if (type !== X25519 || share.length !== 32 || body.length !== FILE_KEY_BYTES + TAG_BYTES) continue;
    for (const { privateKey, publicBytes } of identities) {
      const key = wrappingKey(privateKey, publicKeyOf(share), [share, publicBytes]);
      const fileKey = open(key, Buffer.alloc(NONCE_BYTES), body);
      key.fill(0);
      if (fileKey !== null) return fileKey;
    }
  }
  return null;
}

/** What encrypts the file's key for one recipient. `salt`: the ephemeral share, then the recipient. */
function wrappingKey(privateKey: KeyObject, publicKey: KeyObject, salt: readonly Uint8Array[]): Buffer {
  const shared = diffieHellman({ privateKey, publicKey });
  const key = derive(shared, Buffer.concat(salt), 'age-encryption.org/v1/X25519');
  shared.fill(0);
  return key;
}

function open(key: Buffer, nonce: Buffer, sealed: Uint8Array): Buffer | null {
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
  try {
    decipher.final();
    return plain;
  } catch {
    return null;
  }
}

/** An 11-byte counter, then whether it is the last piece. */
function nonceOf(piece: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32BE(piece, LAST_FLAG - 4);
  nonce[LAST_FLAG] = Number(isLast);
  return nonce;
}

const derive = (secret: Uint8Array, salt: Uint8Array, info: string) =>
  Buffer.from(hkdfSync('sha256', secret, salt, info, 32));

function macOf(fileKey: Uint8Array, header: Uint8Array): Buffer {
  const key = derive(fileKey, Buffer.alloc(0), 'header');
  const mac = createHmac('sha256', key).update(header).digest();
  key.fill(0);
  return mac;
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64').replace(/=+$/, '');
