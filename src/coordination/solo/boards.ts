import { randomUUID } from 'node:crypto';
import { ShipmateError } from '../../errors.ts';
import type {
  Answer,
  ArchiveMemory,
  OperatorRequest,
  PendingRequest,
  Promotion,
  RememberedArchive,
  RequestBoard,
} from '../coordination.ts';
import { type KeptRequest, readArchive, readPromotion, readRequest, readSecret, stands } from '../formats.ts';
import type { Folder } from './folder.ts';
import { poll } from './poll.ts';

export class SoloArchives implements ArchiveMemory {
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  async load(stream: string): Promise<RememberedArchive | null> {
    const name = archiveFile(stream);
    const text = await this.#folder.read(name);
    const archive = readArchive(text);
    if (text === null || archive) return archive;
    throw new ShipmateError(
      `the archive id of stream "${stream}" is unreadable in the state directory's ${name}.json`,
      {
        code: 'BAD_ARCHIVE_MEMORY',
        hint: "look at that file; once it is taken away the store's stream.json decides",
      },
    );
  }

  async propose(stream: string, id: string): Promise<RememberedArchive> {
    const proposed: RememberedArchive = { id, state: 'proposed' };
    const created = await this.#folder.create(archiveFile(stream), proposed, { durable: true });
    return created ? proposed : ((await this.load(stream)) ?? proposed);
  }

  async confirm(stream: string, id: string): Promise<void> {
    await this.#folder.write(archiveFile(stream), { id, state: 'created' }, { durable: true });
  }

  async secret(stream: string): Promise<string | null> {
    const name = secretFile(stream);
    const text = await this.#folder.read(name);
    const kept = readSecret(text);
    if (text === null || kept) return kept?.secret ?? null;
    throw new ShipmateError(`the secret of stream "${stream}" is unreadable in the state directory's ${name}.json`, {
      code: 'BAD_ARCHIVE_MEMORY',
      hint: 'take that file away: etcd and the twins have the secret too; in solo mode put it back from a backup',
    });
  }

  async keepSecret(stream: string, offered: string): Promise<string> {
    await this.#folder.create(secretFile(stream), { secret: offered }, { durable: true });
    return (await this.secret(stream)) ?? offered;
  }

  async generation(stream: string): Promise<Promotion | null> {
    const name = generationFile(stream);
    const text = await this.#folder.read(name);
    const promotion = readPromotion(text);
    if (text === null || promotion) return promotion;
    throw new ShipmateError(
      `which store is the primary of stream "${stream}" is unreadable in the state directory's ${name}.json`,
      { code: 'BAD_ARCHIVE_MEMORY', hint: 'look at that file; the twins may know it as well' },
    );
  }

  /** The first of all promotions has one winner; a later race may end with either. */
  async raise(stream: string, promotion: Promotion): Promise<Promotion> {
    const name = generationFile(stream);
    const isFirst = await this.#folder.create(name, promotion, { durable: true });
    const kept = isFirst ? promotion : await this.generation(stream);
    if (stands(kept, promotion)) return kept;
    await this.#folder.write(name, promotion, { durable: true });
    return promotion;
  }
}

const archiveFile = (stream: string) => `archives/${stream}`;
const secretFile = (stream: string) => `secrets/${stream}`;
export const generationFile = (stream: string) => `generations/${stream}`;

/** How long after its deadline a request that nobody took back is left alone, milliseconds. */
const LINGER_MS = 60_000;

export class SoloRequests implements RequestBoard {
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  async ask(stream: string, request: OperatorRequest, timeoutMs: number): Promise<Answer | null> {
    const name = `${requestDir(stream)}/${randomUUID()}`;
    const expiresMs = Date.now() + timeoutMs + LINGER_MS;
    await this.#folder.write(name, { request, expiresMs } satisfies KeptRequest);
    try {
      for await (const text of poll(() => this.#folder.read(name), AbortSignal.timeout(timeoutMs))) {
        const answer = readRequest(text)?.answer;
        if (answer) return answer;
      }
      return readRequest(await this.#folder.read(name))?.answer ?? null;
    } finally {
      await this.#folder.remove(name);
    }
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<PendingRequest, void, undefined> {
    let given = new Set<string>();
    for await (const names of poll(() => this.#folder.list(requestDir(stream)), signal)) {
      for (const name of names) {
        const kept = readRequest(await this.#folder.read(name));
        if (kept?.expiresMs !== undefined && kept.expiresMs < Date.now()) await this.#folder.remove(name);
        else if (kept && !kept.answer && !given.has(name)) yield { key: name, request: kept.request };
      }
      given = new Set(names);
    }
  }

  async answer({ key }: PendingRequest, answer: Answer): Promise<void> {
    const kept = readRequest(await this.#folder.read(key));
    if (kept && !kept.answer) await this.#folder.write(key, { ...kept, answer });
  }
}

const requestDir = (stream: string) => `requests/${stream}`;
