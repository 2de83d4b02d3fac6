import type { Position } from '../../core/position.ts';
import type { Binlogs } from './binlogs.ts';
import { type Flavour, gtidStateAt } from './gtid.ts';
import type { Segment, SegmentHeader } from './segment.ts';
import { SliceBuffer, Slices } from './slices.ts';
import { Transactions } from './transactions.ts';

/** Where the newest binlog's last transaction ends, found by going on from where it was last found. */
export class EndFinder {
  readonly #binlogs: Binlogs;
  readonly #flavour: Flavour;
  readonly #maxSliceBytes: number;
  #finding: Promise<Position | null> | null = null;
  #current: { segment: Segment; slices: Slices; end: Position } | null = null;

  constructor(options: { binlogs: Binlogs; flavour: Flavour; maxSliceBytes: number }) {
    this.#binlogs = options.binlogs;
    this.#flavour = options.flavour;
    this.#maxSliceBytes = options.maxSliceBytes;
  }

  /** The newest durable byte on a transaction boundary; null while there is no binlog. */
  end(): Promise<Position | null> {
    this.#finding ??= this.#find().finally(() => {
      this.#finding = null;
    });
    return this.#finding;
  }

  async #find(): Promise<Position | null> {
    const newest = await (await this.#binlogs.look()).newestUsable();
    return newest && this.#endOf(newest.segment, newest.header);
  }

  async #endOf(segment: Segment, header: SegmentHeader): Promise<Position> {
    if (this.#current?.segment !== segment) this.#current = { segment, ...this.#begin(segment, header) };
    const current = this.#current;
    const size = await segment.measure();
    await segment.sync(size);
    for (;;) {
      const slice = await current.slices.next({ size, ended: false });
      if (!slice) return current.end;
      if (slice.boundary) current.end = slice.to;
    }
  }

  #begin(segment: Segment, header: SegmentHeader): { slices: Slices; end: Position } {
    const { origin, incarnation, startId: id } = header;
    const flavour = this.#flavour;
    const transactions = new Transactions(flavour, gtidStateAt(flavour, id));
    const buffer = new SliceBuffer(this.#maxSliceBytes);
    const slices = new Slices({ segment, header, flavour, transactions, offset: 0, id, insideEventTo: null, buffer });
    return { slices, end: { origin, incarnation, segment: segment.name, offset: 0, id } };
  }
}
