import { createHash } from 'node:crypto';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Chunk, decodeHeader, HEADER_READ_BYTES, type Header } from '../../src/core/header.ts';
import { placeOf, streamKey } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import { codeOf } from '../../src/errors.ts';

export interface Link {
  readonly header: Header;
  readonly digest: string;
  /** When this reader first met it, monotonic, milliseconds. */
  readonly metAtMs: number;
}

/** One master's reign as the store tells it. */
export interface Reign {
  readonly term: number;
  readonly node: string;
  readonly claim: string;
  readonly opening: Link;
  readonly chunks: number;
  readonly sealedBy: string | null;
}

/**
 * A stream's chain as read straight from a file store's files, by no code of Shipmate's but the header's decoder: each
 * link checked against the one before it. Reading goes on where the last reading ended, so that polling is cheap.
 */
export class ChainReader {
  readonly root: string;
  readonly #stream: string;
  readonly #links: Link[] = [];
  #next = { term: 1, slot: 0 };
  /** Who owns the term that is read: wrote stream.json's owner or the seal of the term before. */
  #owner: string | null = null;
  #digest = '';
  #reading: Promise<readonly Link[]> = Promise.resolve([]);

  constructor({ root, stream = 'orders' }: { root: string; stream?: string }) {
    this.root = root;
    this.#stream = stream;
  }

  /** Every link up to the first empty slot of the open term. Throws where the chain is broken. */
  read(): Promise<readonly Link[]> {
    // One reading at a time, whoever asks: the next one goes on where it ended.
    this.#reading = this.#reading.catch(() => []).then(() => this.#readOn());
    return this.#reading;
  }

  async #readOn(): Promise<readonly Link[]> {
    if (this.#owner === null) await this.#readStreamFile();
    for (let link = await this.#linkAt(this.#next); link !== null; link = await this.#linkAt(this.#next)) {
      this.#append(link);
    }
    return this.#links;
  }

  /** Up to where the log is in the archive. */
  async end(): Promise<Position | null> {
    const links = await this.read();
    const last = links.findLast(({ header }) => header.kind !== 'seal')?.header;
    return last?.kind === 'chunk' ? last.to : last?.kind === 'opening' ? last.at : null;
  }

  async reigns(): Promise<Reign[]> {
    const links = await this.read();
    return links
      .filter(({ header }) => header.kind === 'opening')
      .map((opening) => {
        const { term, node, claim } = opening.header;
        const ofTerm = links.filter(({ header }) => header.term === term);
        const seal = ofTerm.find(({ header }) => header.kind === 'seal');
        const chunks = ofTerm.filter(({ header }) => header.kind === 'chunk').length;
        return { term, node, claim, opening, chunks, sealedBy: seal?.header.node ?? null };
      });
  }

  /** Objects that are not in the chain: what deposed masters wrote behind a seal, and what is on its way. */
  async orphans(): Promise<Header[]> {
    const links = await this.read();
    const inChain = new Set(links.map(({ header }) => `${header.term}/${header.slot}`));
    const found: Header[] = [];
    const terms = join(this.root, this.#stream, 'terms');
    for (const term of await readdir(terms)) {
      for (const slot of await readdir(join(terms, term))) {
        const place = placeOf(`${this.#stream}/terms/${term}/${slot}`);
        if (place === null || inChain.has(`${place.term}/${place.slot}`)) continue;
        const link = await this.#linkAt(place);
        if (link) found.push(link.header);
      }
    }
    return found;
  }

  async #readStreamFile(): Promise<void> {
    const bytes = await readFile(join(this.root, streamKey(this.#stream)));
    this.#owner = JSON.parse(bytes.toString()).owner;
    this.#digest = createHash('sha256').update(bytes).digest('hex');
  }

  async #linkAt({ term, slot }: { term: number; slot: number }): Promise<Link | null> {
    const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
    const path = join(this.root, this.#stream, 'terms', hex(term, 8), hex(slot, 10));
    const bytes = await readStart(path);
    if (bytes === null) return null;
    const { header, digest } = decodeHeader(bytes, path);
    return { header, digest, metAtMs: performance.now() };
  }

  #append(link: Link): void {
    const { header } = link;
    const where = `term ${header.term}, slot ${header.slot}`;
    const demand = (holds: boolean, what: string) => {
      if (!holds) throw new Error(`${where}: ${what}\n${JSON.stringify(header)}`);
    };
    demand(header.term === this.#next.term && header.slot === this.#next.slot, 'says that it stands elsewhere');
    demand(header.prev === this.#digest, 'does not name the header before it');
    if (header.kind !== 'seal') {
      demand(header.claim === this.#owner, 'was written by a claim that does not own the term');
      demand((header.kind === 'opening') === (header.slot === 0), 'is no opening, or one in the middle of a term');
    }
    if (header.kind === 'chunk') this.#demandContiguous(header, demand);
    this.#links.push(link);
    this.#digest = link.digest;
    if (header.kind === 'seal') {
      this.#owner = header.claim;
      this.#next = { term: header.term + 1, slot: 0 };
    } else {
      this.#next = { term: header.term, slot: header.slot + 1 };
    }
  }

  #demandContiguous({ from, to, length }: Chunk, demand: (holds: boolean, what: string) => void): void {
    const before = this.#links.at(-1)?.header;
    const end = before?.kind === 'chunk' ? before.to : before?.kind === 'opening' ? before.at : null;
    demand(to.segment === from.segment && to.offset === from.offset + length, 'holds not as many bytes as it says');
    if (end === null) return;
    const goesOn = from.segment === end.segment ? from.offset === end.offset : from.offset === 0;
    demand(goesOn, `starts at ${from.segment}:${from.offset}, after ${end.segment}:${end.offset}`);
  }
}

async function readStart(path: string): Promise<Buffer | null> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(HEADER_READ_BYTES);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/**
 * The binlogs of a directory, by name, as an archive holds them: with the in-use flag (byte 21 of each file) cleared.
 * `names` or, without it, what the index file lists.
 */
export async function readBinlogs(dir: string, names?: readonly string[]): Promise<Map<string, Buffer>> {
  const index = names ? [] : (await readFile(join(dir, 'binlog.index'), 'utf8')).trim().split('\n');
  const binlogs = new Map<string, Buffer>();
  for (const name of names ?? index.map((line) => line.replace(/^.*\//, ''))) {
    const bytes = await readFile(join(dir, name));
    if (bytes.length > IN_USE_FLAG) bytes[IN_USE_FLAG] = 0;
    binlogs.set(name, bytes);
  }
  return binlogs;
}

/** All bytes of a folder's binlogs and of its subfolders', to look for what must not be there. */
export async function readBinlogsBelow(dir: string): Promise<string> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const contents = await Promise.all(files.map(({ parentPath, name }) => readFile(join(parentPath, name), 'latin1')));
  return contents.join('\n');
}

const IN_USE_FLAG = 21;

/** What differs between the server's binlogs and restored ones; empty when they are the same, byte for byte. */
export function differences(expected: Map<string, Buffer>, restored: Map<string, Buffer>): string[] {
  const names = [...new Set([...expected.keys(), ...restored.keys()])].sort();
  return names.flatMap((name) => {
    const there = restored.get(name);
    const wanted = expected.get(name);
    if (!there) return [`${name} was not restored`];
    if (!wanted) return [`${name} was restored, but the server has no such file`];
    if (there.equals(wanted)) return [];
    const at = wanted.findIndex((byte, offset) => byte !== there[offset]);
    return [`${name}: ${there.length} bytes restored of ${wanted.length}; the first that differs is at ${at}`];
  });
}
