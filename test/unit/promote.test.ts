import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { choosePrimary, demandGeneration, generationOf, remember } from '../../src/archive/generation.ts';
import { readArchive } from '../../src/archive/identity.ts';
import { holdingOf, promote } from '../../src/archive/promote.ts';
import { createMine, openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd, readChain, readPlace } from '../../src/archive/walk.ts';
import { choose, type Looked, type Present } from '../../src/cli/promote-choice.ts';
import type { ArchiveMemory } from '../../src/coordination/coordination.ts';
import { chainStart } from '../../src/core/archive.ts';
import { type ChainEnd, endAfter } from '../../src/core/chain.ts';
import { encodeHeader, generationIn, type Read } from '../../src/core/header.ts';
import { placeKey, streamKey } from '../../src/core/keys.ts';
import { Deposed, ShipmateError, UsageError } from '../../src/errors.ts';
import type { ObjectStore } from '../../src/store/store.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { at, chunkAt, emptyArchive, info, located, retries, STREAM, writer } from '../helpers/hand-made-archive.ts';
import { asker, Pair, type TwinOptions } from '../helpers/pair.ts';
import { until } from '../helpers/wait.ts';

const signal = new AbortController().signal;

/** The store by its name in a config, which a memory store does not know. */
const named = (name: string, store: MemoryStore) =>
  new Proxy(store, {
    get(target, key) {
      const value = key === 'name' ? name : Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

async function chainIn(store: MemoryStore): Promise<Read[]> {
  const archive = await readArchive(store, STREAM);
  const reads: Read[] = [];
  if (archive) await readChain(archive, chainStart(archive.info), (_, read) => reads.push(read));
  return reads;
}

function copyOf(store: MemoryStore): MemoryStore {
  const copy = new MemoryStore();
  for (const key of store.keys('')) copy.overwrite(key, store.peek(key));
  return copy;
}

const STORES = ['main', 'nas', 'far'] as const;
type StoreName = (typeof STORES)[number];
const NODES = ['a', 'b'] as const;
type Node = (typeof NODES)[number];

/** A daemon that leads a term, whether or not anybody else believes so: it writes where it has opened the archive. */
interface Reign {
  readonly store: StoreName;
  readonly archive: Archive;
  end: ChainEnd;
}

/** Three stores, two hosts, etcd, and whatever may happen to them one thing after another. */
class World {
  readonly stores: Record<StoreName, MemoryStore>;
  readonly #known = new Map<StoreName, string[]>();
  readonly #openedIn = new Map<number, StoreName>();
  readonly #reigns: Reign[] = [];
  /** What a copier has read and has yet to write. */
  readonly #late: (() => Promise<unknown>)[] = [];
  #etcd = new MemoryHub();
  readonly #locals = new Map<Node, MemoryHub>(NODES.map((node) => [node, new MemoryHub()]));
  promotions = 0;

  constructor() {
    this.stores = { main: emptyArchive().memory, nas: new MemoryStore(), far: new MemoryStore() };
  }

  async begin(): Promise<void> {
    for (const memory of [this.#shared, ...NODES.map((node) => this.#local(node))]) {
      await memory.confirm(STREAM, info.archive);
    }
  }

  /** Chooses, opens and takes over as a daemon does; the reigns before go on for all they know. */
  async elect(node: Node): Promise<void> {
    const memories = [this.#shared, this.#local(node)] as const;
    const [shared, local] = await Promise.all(memories.map((memory) => memory.generation(STREAM)));
    const promoted = local && (!shared || local.generation > shared.generation) ? local : (shared ?? null);
    try {
      const primary = await choosePrimary({
        ...{ stream: STREAM, primary: 'main', stores: STORES, memories },
        openStore: async (name) => this.#open(name as StoreName),
      });
      const store = primary.store as StoreName;
      const archive = await readArchive(this.#open(store), STREAM);
      if (!archive) throw new ShipmateError('no archive', { code: 'NO_ARCHIVE' });
      const generation = await generationOf(archive);
      demandGeneration(archive, generation, primary.generation);
      await remember(archive, generation, memories);
      for (const memory of memories) await memory.confirm(STREAM, info.archive);
      const by = writer(node);
      const sealed = await sealOpenTerm(archive, await findEnd(archive, null), by, retries);
      const end = await openTerm(archive, sealed, by, { ...located, at: sealed.position ?? at(0) }, retries);
      if (promoted && (promoted.store !== store || end.generation < promoted.generation)) {
        throw new Error(`${promoted.store} was promoted, but ${node} leads in ${store}`);
      }
      const before = this.#openedIn.get(end.generation) ?? store;
      if (before !== store) throw new Error(`generation ${end.generation} is led in ${before} and in ${store}`);
      this.#openedIn.set(end.generation, store);
      this.#reigns.push({ store, archive, end });
    } catch (error) {
      const code = error instanceof ShipmateError ? error.code : '';
      if (!['PRIMARY_AMBIGUOUS', 'PRIMARY_OUTDATED', 'NO_ARCHIVE'].includes(code)) throw error;
    }
  }

  /** A master, perhaps one that was cut off long ago, ships one more chunk. */
  async ship(which: number): Promise<void> {
    const reign = this.#reigns[which % Math.max(1, this.#reigns.length)];
    if (!reign) return;
    const { generation } = reign.end;
    const chunk = { ...chunkAt(reign.end, reign.end.position?.offset ?? 0), ...(generation > 0 && { generation }) };
    const { frame, digest } = encodeHeader(chunk);
    try {
      await createMine(reign.archive, chunk, digest, () => frame, retries);
      reign.end = endAfter({ header: chunk, digest, payloadOffset: frame.length });
    } catch (error) {
      if (!(error instanceof Deposed)) throw error;
      this.#reigns.splice(this.#reigns.indexOf(reign), 1);
    }
  }

  /** A copier, of whichever master, brings the next object, or has read it and writes it later. */
  async copy(from: StoreName, to: StoreName, isLate: boolean): Promise<void> {
    if (from === to) return;
    const [source, target] = [this.stores[from], this.stores[to]];
    const create = (key: string) => target.create(key, Buffer.from(source.peek(key)), signal);
    const origin = await readArchive(source, STREAM);
    if (!origin) return;
    const copy = await readArchive(target, STREAM);
    if (!copy) return void (await create(streamKey(STREAM)));
    const end = await findEnd(copy, null);
    const read = await readPlace(origin, end);
    if (read?.header.prev !== end.digest) return; // nothing new, or diverged
    const bring = () => create(placeKey(STREAM, end));
    if (isLate) this.#late.push(bring);
    else await bring();
  }

  async land(): Promise<void> {
    await this.#late.shift()?.();
  }

  /** As the command does it; `dies`: between the seal and the record. */
  async promote(node: Node, to: StoreName, dies: boolean): Promise<void> {
    const memories = [this.#shared, this.#local(node)] as const;
    const held = await Promise.all(STORES.map((name) => holdingOf(this.#open(name), STREAM)));
    const holding = held[STORES.indexOf(to)];
    if (!holding) return;
    const recorded = await Promise.all(memories.map((memory) => memory.generation(STREAM)));
    const known = [...recorded.map((one) => one?.generation ?? 0), ...held.map((one) => one?.end.generation ?? 0)];
    const generation = Math.max(...known) + 1;
    const dead = { ...this.#shared, raise: () => Promise.reject(new Error('killed')) };
    const outcome = promote({ ...holding, generation, node, shared: dies ? dead : this.#shared, signal });
    if (dies) await expect(outcome).rejects.toThrow('killed');
    else {
      const { promotion, end } = await outcome;
      expect(promotion).toMatchObject({ generation, store: to });
      expect(end.generation).toBe(generation);
      await memories[1].raise(STREAM, promotion);
      this.promotions++;
    }
  }

  wipeEtcd(): void {
    this.#etcd = new MemoryHub();
  }

  loseStateDir(node: Node): void {
    this.#locals.set(node, new MemoryHub());
  }

  /** Of every store: its chain only grows, and its generation never falls. */
  async check(): Promise<void> {
    for (const name of STORES) {
      const archive = await readArchive(this.stores[name], STREAM);
      if (archive === null) continue;
      const known = this.#known.get(name) ?? [];
      const digests: string[] = [];
      let generation = 0;
      await readChain(archive, chainStart(info), (met, { header, digest }) => {
        digests.push(digest);
        if (met === 'foreign') return;
        if (generationIn(header) < generation) throw new Error(`the generation falls to ${generationIn(header)}`);
        generation = generationIn(header);
      });
      if (known.some((digest, index) => digests[index] !== digest)) throw new Error(`the chain in ${name} changed`);
      this.#known.set(name, digests);
    }
  }

  #open = (name: StoreName) => named(name, this.stores[name]);
  get #shared(): ArchiveMemory {
    return this.#etcd.client('x').archives;
  }
  #local = (node: Node): ArchiveMemory => this.#locals.get(node)!.client(node).archives;
}

const node = fc.constantFrom(...NODES);
const store = fc.constantFrom(...STORES);
const event = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('ship' as const), which: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('elect' as const), node }) },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('copy' as const), from: store, to: store, isLate: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('land' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('promote' as const), node, to: store, dies: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wipe-etcd' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose-state' as const), node }) },
);

describe('rule 19: promotion', () => {
  test('over any history each generation is led in one store, and no chain loses or changes what it had', async () => {
    let promotions = 0;
    const histories = fc.array(event, { minLength: 10, maxLength: 50 });
    await fc.assert(
      fc.asyncProperty(histories, async (events) => {
        const world = new World();
        await world.begin();
        await world.elect('a');
        for (const each of events) {
          if (each.kind === 'ship') await world.ship(each.which);
          else if (each.kind === 'elect') await world.elect(each.node);
          else if (each.kind === 'copy') await world.copy(each.from, each.to, each.isLate);
          else if (each.kind === 'land') await world.land();
          else if (each.kind === 'promote') await world.promote(each.node, each.to, each.dies);
          else if (each.kind === 'wipe-etcd') world.wipeEtcd();
          else world.loseStateDir(each.node);
          if (each.kind === 'promote' || each.kind === 'elect') await world.check();
        }
        await world.check();
        promotions += world.promotions;
      }),
      { numRuns: 40 },
    );
    expect(promotions).toBeGreaterThan(5); // of some thirty: the histories are about something
  });
});

describe('stores alone, where nobody remembers', () => {
  const choose = (stores: Record<string, MemoryStore>) => {
    const { archives } = new MemoryHub().client('a');
    const openStore = async (name: string) => named(name, stores[name]!);
    const names = Object.keys(stores);
    return choosePrimary({
      ...{ stream: STREAM, primary: 'main', stores: names, openStore },
      memories: [archives, archives],
    });
  };
  const promoteIn = async (store: MemoryStore, generation: number) => {
    const holding = await holdingOf(named('nas', store), STREAM);
    const shared = new MemoryHub().client('a').archives;
    return promote({ ...holding!, generation, node: 'a', shared, signal });
  };

  test('of several of the highest generation the one that goes furthest is taken, if the others are its copies', async () => {
    const main = emptyArchive().memory;
    const nas = emptyArchive().memory;
    const { end } = await promoteIn(nas, 1);
    const far = copyOf(nas);
    await sealOpenTerm({ store: nas, info }, end, writer(), retries);
    expect(await choose({ main, far, nas })).toMatchObject({ store: 'nas', generation: 1 });
  });

  test('two that went apart are refused, until one is promoted over the other', async () => {
    const main = emptyArchive().memory;
    const [nas, far] = [emptyArchive().memory, emptyArchive().memory];
    await promoteIn(nas, 1);
    await promoteIn(far, 1);
    await expect(choose({ main, nas, far })).rejects.toMatchObject({ code: 'PRIMARY_AMBIGUOUS', verdict: 'retry' });
    await promoteIn(far, 2);
    expect(await choose({ main, nas, far })).toMatchObject({ store: 'far', generation: 2 });
  });

  test('one that fails is passed over, and named', async () => {
    const main = emptyArchive().memory;
    const nas = emptyArchive().memory;
    await promoteIn(nas, 1);
    const dead = new FaultyStore(main, () => ({ kind: 'before' }));
    expect(await choose({ main: dead as never, nas })).toEqual({ store: 'nas', generation: 1, unanswered: ['main'] });
  });
});

describe('twins on a promoted store', () => {
  const pairs: Pair[] = [];
  afterEach(async () => {
    await Promise.all(pairs.splice(0).map((pair) => pair.stop()));
  });

  /** A plan with one copy, which the master makes. */
  function newPair() {
    const pair = new Pair();
    pairs.push(pair);
    const nas = new MemoryStore();
    const main = new FaultyStore(pair.store);
    const far = new MemoryStore();
    const all: Record<string, ObjectStore> = { main, nas: named('nas', nas), far: named('far', far) };
    const stores = (name: string) => {
      const store = all[name];
      if (store) return store;
      throw new UsageError(`the config has no store "${name}"`);
    };
    const plan = { primary: 'main', copies: ['nas'] };
    const start = (node: string, own: TwinOptions = {}) => pair.start(node, { plan, stores, rememberMs: 200, ...own });
    const shipped = () =>
      until('nas has all of the log', async () => endsAt(await chainIn(nas), pair.log.segments.at(-1)!.bytes.length));
    const promoteNas = async (generation = 1) => {
      const holding = await holdingOf(stores('nas'), STREAM);
      const shared = pair.hub.client('operator').archives;
      return promote({ ...holding!, generation, node: 'operator', shared, signal });
    };
    return { pair, main, nas, start, shipped, promoteNas };
  }

  const endsAt = (chain: readonly Read[], offset: number) => {
    const last = chain.findLast(({ header }) => header.kind === 'chunk')?.header;
    return last?.kind === 'chunk' && last.to.offset === offset;
  };

  const loses = (store: FaultyStore) => {
    store.faults = () => ({ kind: 'lost' }); // hangs for ever, as a dead mount does
  };

  test('both leave a primary that hangs, without a restart; what the copy lacks is shipped again', async () => {
    const { pair, main, nas, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const a = start('a');
    await pair.hasRole('a', 'master');
    const b = start('b');
    await pair.isReady('b');
    await shipped();
    loses(main);
    pair.log.append({ bytes: 3000 });
    await promoteNas();
    await shipped();
    await until('both have followed', async () => {
      const twins = await Promise.all(['a', 'b'].map((node) => pair.twin(node)));
      return twins.every((twin) => twin?.generation === 1 && twin.ready);
    });
    const led = (await pair.twin('a'))?.role === 'master' ? a : b;
    expect(await led.metrics.text()).toContain('shipmate_alarm{stream="orders",alarm="promoted",cluster="test"} 1');
    const chain = await chainIn(nas);
    expect(chain.map(({ header }) => generationIn(header)).at(-1)).toBe(1);
    await led.stop();
    pair.log.append();
    await shipped();
    expect((await pair.hub.client('observer').archives.generation(STREAM))?.store).toBe('nas');
  });

  test('a master that is cut off from etcd goes on in the old store, alone, and follows when it hears of it', async () => {
    const { pair, nas, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const a = start('a');
    await pair.hasRole('a', 'master');
    start('b');
    await pair.isReady('b');
    await shipped();
    a.client.cutOff();
    pair.hub.expire('a');
    await promoteNas();
    pair.log.append();
    await shipped();
    await pair.hasRole('b', 'master');
    await pair.shipped(); // to main, by a
    const before = (await chainIn(nas)).length;
    a.client.heal();
    await until('a has followed', async () => (await pair.twin('a'))?.generation === 1);
    const chain = await chainIn(nas);
    expect(chain.slice(0, before).every(({ header }) => header.node !== 'a' || generationIn(header) === 0)).toBe(true);
    pair.log.append();
    await shipped();
  });

  test('etcd wiped and the state directory older than the promotion: the stores tell, and everybody learns it again', async () => {
    const { pair, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const memory = new MemoryHub().client('a').archives;
    const first = start('a', { memory });
    await shipped();
    await first.stop();
    await promoteNas();
    pair.hub.wipe();
    pair.log.append();
    start('a', { memory });
    await shipped();
    expect(await memory.generation(STREAM)).toMatchObject({ generation: 1, store: 'nas' });
    expect(await pair.hub.client('x').archives.generation(STREAM)).toMatchObject({ generation: 1, store: 'nas' });
    expect(endsAt(await pair.chain(), pair.log.segments.at(-1)!.bytes.length)).toBe(false);
  });

  test('what the copy lacks and the server has purged is a gap, which only an operator crosses', async () => {
    const { pair, nas, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const a = start('a');
    await pair.hasRole('a', 'master');
    await shipped();
    await a.stop();
    const alone = start('a', { plan: { primary: 'main', copies: [] } }); // from here on nas is not brought after
    for (let n = 0; n < 3; n++) {
      pair.log.append();
      pair.log.rotate();
    }
    pair.log.append();
    await pair.shipped();
    await alone.stop();
    pair.log.purge(2);
    await promoteNas();
    const { client } = start('a');
    await until('a reports the gap', async () => (await pair.twin('a'))?.reason.startsWith('gap'));
    const before = (await chainIn(nas)).length;
    const accepted = await client.requests.ask(STREAM, { kind: 'accept-gap', ...asker }, 5_000);
    expect(accepted).toMatchObject({ ok: true });
    const opening = (await chainIn(nas)).slice(before).find(({ header }) => header.kind === 'opening');
    expect(opening?.header).toMatchObject({ result: 'gap', generation: 1 });
  });

  test('an older state of the promoted store is refused until the right one is back', async () => {
    const { pair, nas, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const first = start('a');
    await shipped();
    await first.stop();
    await promoteNas();
    const [seal] = nas.keys(`${STREAM}/terms/`).slice(-1);
    const bytes = nas.peek(seal!);
    await nas.delete([seal!]);
    const a = start('a');
    await until('a says so', async () => (await pair.twin('a'))?.reason.includes('generation 1 was promoted'));
    expect(a.shipper.notReady()[0]).toContain('store nas holds generation 0');
    nas.overwrite(seal!, bytes);
    await shipped();
  });

  test('a promoted store that this host does not know is waited for, and nothing is written elsewhere', async () => {
    const { pair, start, shipped, promoteNas } = newPair();
    pair.log.append();
    const first = start('a');
    await shipped();
    await first.stop();
    await promoteNas();
    const stores = (name: string) => {
      if (name === 'main') return pair.store;
      throw new UsageError(`the config has no store "${name}"`);
    };
    const before = (await pair.chain()).length;
    start('a', { stores, plan: { primary: 'main', copies: [] } });
    await until('a says so', async () => (await pair.twin('a'))?.reason.includes('its primary is store nas now'));
    expect((await pair.chain()).length).toBe(before);
  });
});

describe('which copy is promoted', () => {
  const present: Present = { store: 'main', archive: 'archive-1', generation: 0, cursor: null, isSettled: false };
  const holds = (store: string, slot: number, { generation = 0, archive = 'archive-1' } = {}): Looked => ({
    ...{ store, error: null },
    holding: {
      archive: { store: new MemoryStore(), info: { ...info, archive } },
      end: { ...chainStart(info), slot, generation },
      writtenMs: null,
    },
  });
  const fails: Looked = { store: 'dead', holding: null, error: new Error('no answer') };

  test('the one that goes furthest, unless another is named: then it is said which goes further', () => {
    const looked = [holds('nas', 3), holds('far', 7), fails];
    expect(choose(STREAM, looked, present, undefined).store).toBe('far');
    const { store, remarks } = choose(STREAM, looked, present, 'nas');
    expect(store).toBe('nas');
    expect(remarks.join('\n')).toMatch(/WARNING: store far goes further than nas/);
    expect(remarks.join('\n')).toMatch(/dead was not compared: no answer/);
  });

  test('never, by itself, one that an earlier promotion left behind', () => {
    const looked = [holds('old', 9), holds('nas', 3, { generation: 1 })];
    const after = { ...present, store: 'lost', generation: 1 };
    expect(choose(STREAM, looked, after, undefined).store).toBe('nas');
    expect(() => choose(STREAM, [holds('old', 9)], after, undefined)).toThrow('1 was promoted since');
    expect(choose(STREAM, looked, after, 'old').remarks[0]).toMatch(/WARNING: store old.*generation 0/);
  });

  test('not one that is empty, does not answer, or holds somebody else’s archive', () => {
    const looked = [holds('other', 9, { archive: 'another' }), fails, { store: 'empty', holding: null, error: null }];
    expect(() => choose(STREAM, looked, present, undefined)).toThrow(
      /other: it holds archive another .*; dead: no answer; empty: it holds no archive/,
    );
    expect(() => choose(STREAM, [holds('nas', 1), ...looked], present, 'other')).toThrow(/is other the right store/);
  });
});
