import { randomUUID } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import type { ArchiveMemory, CursorBoard, RememberedArchive } from '../coordination/coordination.ts';
import { type ArchiveInfo, DEFAULT_WINDOW, decodeArchiveFile, encodeArchiveFile } from '../core/archive.ts';
import { FORMAT_VERSION } from '../core/header.ts';
import { probeKey, streamKey } from '../core/keys.ts';
import { ShipmateError, UsageError } from '../errors.ts';
import type { SourceIdentity } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import { endsEncrypted } from './head.ts';
import { WitnessSecret } from './secret.ts';
import { newClaim } from './takeover.ts';
import { type Archive, findEnd } from './walk.ts';

/** Who opens the archive, and everywhere that an archive's id is remembered (protocol rule 1). */
export interface Opener {
  readonly store: ObjectStore;
  readonly stream: string;
  readonly cluster: string;
  readonly node: string;
  readonly identity: SourceIdentity;
  /** What the twins remember together (etcd), and what this host remembers (stateDir). */
  readonly memories: readonly [shared: ArchiveMemory, local: ArchiveMemory];
  /** Whether its chunks are to be encrypted. */
  readonly encrypts?: boolean;
  readonly signal: AbortSignal;
}

/** An archive that is there, for readers: the store alone tells. */
export async function readArchive(store: ObjectStore, stream: string): Promise<Archive | null> {
  const bytes = await readStreamFile(store, stream);
  return bytes && { store, info: decodeArchiveFile(bytes, `${streamKey(stream)} in store ${store.name}`) };
}

/**
 * Opens the archive for writing: found, of the remembered id, of this database, on a store that honours create-only.
 * With `init` creates it, or joins one whose id and identity agree. `claim` is set where this call created it: it owns
 * term 1.
 */
export async function openArchive(opener: Opener, init: boolean): Promise<{ archive: Archive; claim: string | null }> {
  const claim = init ? await create(opener) : null;
  const remembered = await recall(opener);
  const found = await readStreamFile(opener.store, opener.stream);
  const archive = { ...demandKnown(opener, remembered, found), secret: new WitnessSecret(opener) };
  demandIdentity(opener, archive.info);
  await probe(opener, found ?? Buffer.alloc(0));
  for (const memory of opener.memories) {
    const known = await memory.load(opener.stream);
    if (known?.id !== archive.info.archive || known.state !== 'created') {
      await memory.confirm(opener.stream, archive.info.archive);
    }
  }
  if (opener.encrypts) await archive.secret.agree({ isUsed: () => isEncrypted(archive) });
  return { archive, claim: claim !== null && archive.info.owner === claim ? claim : null };
}

/**
 * On an operator's word: what the store holds is this stream's archive from now on, whatever was remembered, and as far
 * as it goes there. Where it holds none, a new archive is begun.
 */
export async function adoptArchive(opener: Opener, cursors: CursorBoard): Promise<ArchiveInfo> {
  const { store, stream, memories } = opener;
  if ((await readStreamFile(store, stream)) === null) await createFile(opener, randomUUID());
  const archive = await readArchive(store, stream);
  if (archive === null) throw notCreateOnly(store);
  for (const memory of memories) await memory.confirm(stream, archive.info.archive);
  // Where nobody remembers the secret of what is encrypted there, it is gone: from here on a new one counts.
  if (opener.encrypts || (await isEncrypted(archive))) await new WitnessSecret(opener).agree();
  await cursors.forget(stream);
  return archive.info;
}

const isEncrypted = async (archive: Archive) => endsEncrypted(archive, await findEnd(archive, null));

/** Two creations of one new name: a store that lets both win can't be a primary (rule 2). Returns the probe's key. */
export async function raceProbe(store: ObjectStore, stream: string, signal: AbortSignal): Promise<string> {
  const key = probeKey(stream, randomUUID());
  const outcomes = await Promise.all(['a', 'b'].map((body) => store.create(key, Buffer.from(body), signal)));
  if (outcomes.filter((outcome) => outcome === 'created').length !== 1) throw notCreateOnly(store);
  return key;
}

/** The twins agree on the id first, so that whoever creates stream.json, all of them mean the same archive. */
async function create(opener: Opener): Promise<string | null> {
  const { store, stream, memories } = opener;
  const [shared, local] = memories;
  const proposal = (await local.load(stream))?.id ?? randomUUID();
  const agreed = await shared.propose(stream, proposal);
  const known = await local.propose(stream, agreed.id);
  if (agreed.state === 'created' || known.state === 'created' || agreed.id !== known.id) return null;
  if ((await readStreamFile(store, stream)) !== null) return null;
  return createFile(opener, agreed.id);
}

/** Returns the claim that owns term 1 if this call's file won. */
async function createFile({ store, stream, cluster, node, identity, signal }: Opener, id: string): Promise<string> {
  await raceProbe(store, stream, signal);
  const owner = newClaim();
  const body = encodeArchiveFile({
    v: FORMAT_VERSION,
    archive: id,
    stream,
    cluster,
    owner,
    node,
    identity: { ...identity },
    window: DEFAULT_WINDOW,
    created: new Date().toISOString(),
  });
  await store.create(streamKey(stream), body, signal);
  return owner;
}

async function recall({ memories, stream }: Opener): Promise<RememberedArchive | null> {
  const known = (await Promise.all(memories.map((memory) => memory.load(stream)))).filter((one) => one !== null);
  const [first, second] = known;
  if (first && second && first.id !== second.id) {
    throw new ShipmateError(
      `stream ${stream}: the twins know archive ${first.id}, but this host remembers ${second.id}`,
      {
        code: 'ARCHIVE_ID_CONFLICT',
        hint: `this host's stateDir or the etcd cluster is of another deployment; if not: shipmate adopt ${stream}`,
      },
    );
  }
  return known.find((one) => one.state === 'created') ?? first ?? null;
}

function demandKnown({ store, stream }: Opener, remembered: RememberedArchive | null, found: Buffer | null): Archive {
  if (found === null) {
    if (remembered?.state === 'created') {
      throw new ShipmateError(`archive ${remembered.id} of stream ${stream} is not in store ${store.name}`, {
        code: 'ARCHIVE_GONE',
        hint:
          'a store that was emptied or not mounted, or a wrong bucket or prefix: put it right. ' +
          `To begin a new archive on purpose: shipmate adopt ${stream}`,
      });
    }
    throw new ShipmateError(`store ${store.name} holds no archive of stream ${stream}`, {
      code: 'NO_ARCHIVE',
      hint: 'if this is the first run, create it: shipmate run --init',
    });
  }
  const info = decodeArchiveFile(found, `${streamKey(stream)} in store ${store.name}`);
  if (remembered?.id !== info.archive) {
    throw new ShipmateError(
      `store ${store.name} holds archive ${info.archive} of stream ${stream} (cluster ${info.cluster}), ` +
        (remembered?.state === 'created'
          ? `but this daemon knows ${remembered.id}`
          : 'which neither this host nor its twins know'),
      {
        code: 'ARCHIVE_UNKNOWN',
        hint:
          'another cluster or a clone ships to this store and prefix: choose another prefix. ' +
          `If it is this database's archive: shipmate adopt ${stream}`,
      },
    );
  }
  return { store, info };
}

function demandIdentity({ store, stream, identity, cluster }: Opener, info: ArchiveInfo): void {
  const differs =
    info.identity.type !== identity.type
      ? `${info.identity.type}, this source is ${identity.type}`
      : info.stream !== stream
        ? `stream ${info.stream}`
        : info.cluster !== cluster
          ? `cluster ${info.cluster}, this is ${cluster}`
          : null;
  if (differs === null) return;
  throw new ShipmateError(`the archive of stream ${stream} in store ${store.name} was made for ${differs}`, {
    code: 'WRONG_IDENTITY',
    hint: 'the config points a stream at the wrong database or store: correct "source", "store" or "prefix"',
  });
}

/** The very bytes again: a store that honours create-only says `exists` (rule 2). */
async function probe({ store, stream, signal }: Opener, found: Buffer): Promise<void> {
  if ((await store.create(streamKey(stream), found, signal)) !== 'exists') throw notCreateOnly(store);
}

function notCreateOnly(store: ObjectStore): UsageError {
  return new UsageError(
    `store ${store.name} does not honour "create only if the name is free"`,
    'Shipmate fences its writers by that: use a store or gateway that supports conditional writes',
  );
}

async function readStreamFile(store: ObjectStore, stream: string): Promise<Buffer | null> {
  try {
    return await buffer(await store.read(streamKey(stream)));
  } catch (error) {
    if (error instanceof ShipmateError && error.code === 'NOT_FOUND') return null;
    throw error;
  }
}
