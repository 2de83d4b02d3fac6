import { corrupt } from './errors.ts';
import { lsnText } from './lsn.ts';
import type { SegmentFile } from './pg-wal.ts';
import type { Descent } from './timelines.ts';
import { DEFAULT_PAGE_BYTES, judgePage, LONG_HEADER_BYTES, readPageHeader, SHORT_HEADER_BYTES } from './wal-page.ts';
import { WalScanner } from './wal-records.ts';

const PAGE_BYTES = DEFAULT_PAGE_BYTES;
/** Of a log switch's record: it has a header and nothing else. */
const SWITCH = { infoAt: 16, manager: 0, info: 0x40, infoMask: 0xf0 } as const;

/**
 * Checks the pages of one segment before they are shipped: a file that the server uses again, or another server's, holds
 * pages of other addresses or timelines, or zeros. Zeros are right only behind a log switch, up to the segment's end.
 */
export class PageChecker {
  readonly #file: SegmentFile;
  readonly #descent: Descent;
  /** The LSN of the segment's first byte. */
  readonly #start: bigint;
  /** Behind a log switch; null: none was met. */
  #blankFrom: number | null = null;

  constructor(file: SegmentFile, descent: Descent, start: bigint) {
    this.#file = file;
    this.#descent = descent;
    this.#start = start;
  }

  /**
   * The bytes begin with a page, at `offset` of the segment, and may end inside one. Returns how many of them are known to
   * be right: all but the beginning of a header. Throws SOURCE_CORRUPT.
   */
  async check(bytes: Buffer, offset: number): Promise<number> {
    for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
      const place = offset + at;
      const headerBytes = place === 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES;
      if (bytes.length - at < headerBytes) return at;
      const lsn = this.#start + BigInt(place);
      const judged = judgePage(bytes, at, { timeline: this.#descent.writerOf(lsn).number, lsn });
      if (judged === 'other') throw this.#corrupt(place, `its page is not that of ${lsnText(lsn)}`);
      if (judged === 'blank') await this.#demandBlank(bytes.subarray(at, at + PAGE_BYTES), place);
      else if (this.#blankFrom !== null && place >= this.#blankFrom) {
        throw this.#corrupt(place, 'there is WAL behind a log switch');
      }
      if (place === 0) this.#demandCluster(bytes);
    }
    return bytes.length;
  }

  #demandCluster(bytes: Buffer): void {
    const { systemId, segmentBytes } = this.#descent.cluster;
    const long = readPageHeader(bytes)?.long;
    if (long?.systemId !== systemId) throw this.#corrupt(0, `it is of the cluster ${long?.systemId}, not ${systemId}`);
    if (long.segmentBytes !== segmentBytes || long.pageBytes !== PAGE_BYTES) {
      throw this.#corrupt(0, `it has segments of ${long.segmentBytes} and pages of ${long.pageBytes} bytes`);
    }
  }

  async #demandBlank(page: Buffer, place: number): Promise<void> {
    if (page.some((byte) => byte !== 0)) throw this.#corrupt(place, 'its page has no header');
    if (this.#blankFrom !== null && place >= this.#blankFrom) return;
    const last = await this.#lastPageBefore(place);
    if (last === null || !(await this.#endsWithSwitch(last))) {
      throw this.#corrupt(place, 'there are zeros where the server has flushed WAL');
    }
    this.#blankFrom = last + PAGE_BYTES;
  }

  /** The offset of the last page before another that is not blank; null: there is none. */
  async #lastPageBefore(place: number): Promise<number | null> {
    const page = Buffer.allocUnsafe(PAGE_BYTES);
    for (let at = place - PAGE_BYTES; at >= 0; at -= PAGE_BYTES) {
      await this.#file.read(page, PAGE_BYTES, at);
      if (page.some((byte) => byte !== 0)) return at;
    }
    return null;
  }

  /** Whether the last record of a page is that of a log switch; it may begin on the page before. */
  async #endsWithSwitch(offset: number): Promise<boolean> {
    const from = Math.max(0, offset - PAGE_BYTES);
    const bytes = Buffer.allocUnsafe(offset + PAGE_BYTES - from);
    await this.#file.read(bytes, bytes.length, from);
    const scanner = new WalScanner();
    scanner.feed(this.#start + BigInt(from), bytes);
    if (scanner.lastStart === null) return false;
    let at = Number(scanner.lastStart - this.#start) - from + SWITCH.infoAt;
    const isOnNextPage = at >= PAGE_BYTES && at - SWITCH.infoAt < PAGE_BYTES;
    if (isOnNextPage) at += SHORT_HEADER_BYTES;
    return (bytes[at]! & SWITCH.infoMask) === SWITCH.info && bytes[at + 1] === SWITCH.manager;
  }

  #corrupt(place: number, what: string) {
    return corrupt(this.#file.path, place, what);
  }
}
