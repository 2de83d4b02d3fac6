import { crc32c } from '@node-rs/crc32';

/** CRC32C as Google writes it: base64 of four bytes, big-endian. */
export function encodeCrc32c(sum: number): string {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(sum);
  return bytes.toString('base64');
}

export const crc32cOf = (bytes: Uint8Array) => encodeCrc32c(crc32c(bytes));

/** CRC32C of bytes that come piece by piece. */
export class RunningCrc32c {
  #sum = 0;

  add(piece: Uint8Array): void {
    this.#sum = crc32c(piece, this.#sum);
  }

  get encoded(): string {
    return encodeCrc32c(this.#sum);
  }
}

/** The sum in an `x-goog-hash` header; null where there is none. */
export function crc32cIn(header: string | string[] | undefined): string | null {
  return /crc32c=([A-Za-z0-9+/=]+)/.exec(String(header ?? ''))?.[1] ?? null;
}
