import { createHash } from 'node:crypto';
import { type Archive, findEnd, readChain, readFloor } from '../../src/archive/walk.ts';
import type { ChainEnd } from '../../src/core/chain.ts';
import { encodeFloor } from '../../src/core/floor.ts';
import { type Chunk, encodeHeader, type Read } from '../../src/core/header.ts';
import { comparePlaces, floorKey, type Place, placeKey, placeOf } from '../../src/core/keys.ts';
import type { MemoryStore } from '../fakes/memory-store.ts';
import { chunkAt, emptyArchive, info, STREAM, takeOver, writer } from './hand-made-archive.ts';

const { signal } = new AbortController();

/** A primary that a test writes by hand, chunks with a payload that is what they say. */
export class HandMadePrimary {
  readonly memory: MemoryStore;
  readonly archive: Archive;
  /** What its headers and floors say of the time, milliseconds. */
  nowMs = Date.parse('2026-01-01T00:00:00Z');
  end: ChainEnd;

  private constructor(made: { memory: MemoryStore; archive: Archive }, end: ChainEnd) {
    this.memory = made.memory;
    this.archive = made.archive;
    this.end = end;
  }

  static async make(): Promise<HandMadePrimary> {
    return HandMadePrimary.of(emptyArchive());
  }

  /** Takes over what is there. */
  static async of(made: { memory: MemoryStore; archive: Archive }): Promise<HandMadePrimary> {
    return new HandMadePrimary(made, await takeOver(made.archive));
  }

  async ship(count = 1): Promise<Chunk> {
    let header: Chunk;
    do {
      header = await this.#chunk(this.end, this.end.owner);
      this.end = await findEnd(this.archive, this.end.last && { ...this.end.last, digest: this.end.digest });
    } while (--count > 0);
    return header;
  }

  async takeOver(): Promise<void> {
    this.end = await takeOver(this.archive, { ...writer(), now: () => new Date(this.nowMs) });
  }

  /** What correct daemons never leave: a stranger's object in the open term, which ends it. */
  async meetStranger(): Promise<void> {
    await this.#chunk(this.end, 'a stranger');
    await this.takeOver();
  }

  /** What a deposed master left behind its term's seal. */
  async leaveOrphan(): Promise<void> {
    const old = this.end;
    await this.takeOver();
    await this.#chunk({ ...old, slot: old.slot + 1 }, old.owner);
  }

  /** Retention: a floor at a chunk of the chain (by default the newest), and the chunks below it gone. */
  async prune(upTo: (chunks: readonly Read[]) => Read | undefined = (chunks) => chunks.at(-1)): Promise<void> {
    const chunks: Read[] = [];
    let before = await readFloor(this.archive);
    const ends = new Map<Read, ChainEnd>();
    await readChain(this.archive, before, (met, read, end) => {
      if (met === 'chunk') chunks.push(read);
      ends.set(read, before);
      before = end;
    });
    const chosen = upTo(chunks);
    if (!chosen) return;
    const floor = ends.get(chosen)!;
    await this.memory.create(floorKey(STREAM, floor), encodeFloor(floor, new Date(this.nowMs)), signal);
    const below = chunks.filter(({ header }) => comparePlaces(header, floor) < 0);
    await this.memory.delete(below.map(({ header }) => placeKey(STREAM, header)));
  }

  /** Whatever differs in a copy from what it must hold; empty when it is the same, byte for byte, from its floor on. */
  async differences(copy: MemoryStore): Promise<string[]> {
    const archive: Archive = { store: copy, info };
    const wrong: string[] = [];
    for (const key of copy.keys()) {
      const isSame = this.memory.keys(key).includes(key) && this.memory.peek(key).equals(copy.peek(key));
      if (!isSame && !this.#isPruned(key)) wrong.push(`${key} is not as in the primary`);
    }
    const [floor, end] = [await readFloor(archive), await findEnd(archive, null)];
    if (comparePlaces(end, this.end) !== 0 || end.digest !== this.end.digest) {
      wrong.push(`ends at ${end.term}/${end.slot}, not at ${this.end.term}/${this.end.slot}`);
    }
    const places: Place[] = [];
    const primaryFloor = await readFloor(this.archive);
    await readChain(this.archive, comparePlaces(floor, primaryFloor) < 0 ? primaryFloor : floor, (_, { header }) =>
      places.push(header),
    );
    for (const place of places) {
      const key = placeKey(STREAM, place);
      if (!copy.keys(key).includes(key)) wrong.push(`${key} is missing`);
    }
    await readChain(archive, floor, () => {}); // throws where it is broken
    return wrong;
  }

  #isPruned(key: string): boolean {
    return placeOf(key) !== null && !this.memory.keys(key).includes(key);
  }

  async #chunk(end: ChainEnd, claim: string): Promise<Chunk> {
    const payload = Buffer.from(`payload of ${end.term}/${end.slot} `.repeat(1 + (end.slot % 5)));
    const sha256 = createHash('sha256').update(payload).digest('hex');
    const header: Chunk = {
      ...chunkAt(end, end.position?.offset ?? 0),
      settled: end.slot, // shipped one after the other
      ...{ claim, time: new Date(this.nowMs).toISOString(), stored: { bytes: payload.length, sha256 } },
      ...(end.generation > 0 && { generation: end.generation }),
    };
    const { frame } = encodeHeader(header);
    await this.memory.create(placeKey(STREAM, end), Buffer.concat([frame, payload]), signal);
    return header;
  }
}
