import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { abortReason, ShipmateError } from '../../src/errors.ts';
import type { ByteRange, Capacity, ObjectInfo, ObjectStore } from '../../src/store/store.ts';
import { collect } from './memory-store.ts';

export type Operation = 'create' | 'read' | 'readStart' | 'head' | 'list' | 'delete';

/**
 * What goes wrong with one operation. Waiting is for a promise, so that a test decides when it ends (a gate's `opened`,
 * a scheduler's step) and no wall clock is needed.
 */
export type Fault =
  /** Reports a failure; nothing was done. `error` in place of the usual STORE_FAILED. */
  | { readonly kind: 'before'; readonly error?: Error }
  /** Was done, and reports a failure: the ambiguous case. */
  | { readonly kind: 'after'; readonly error?: Error }
  /** No room: STORE_FULL. */
  | { readonly kind: 'full' }
  /** Done once `until` has settled; aborting before that ends it with nothing done. */
  | { readonly kind: 'delay'; readonly until: Promise<unknown> }
  /** (create) Reports a failure at once and is done by itself once `until` has settled, whatever the caller's signal says. */
  | { readonly kind: 'late'; readonly until: Promise<unknown> }
  /** Never answers and does nothing; ends only by the caller's signal (without one, never). */
  | { readonly kind: 'lost' }
  /** (create) Answers this and does nothing: a store that breaks its promise. */
  | { readonly kind: 'lie'; readonly answer: 'created' | 'exists' };

/** Decides, at each operation, what goes wrong with it; nothing for undefined. Called once an operation. */
export type Faults = (operation: Operation, key: string) => Fault | undefined;

/** Something that a test opens when it wants what waits behind it to go on. */
export class Gate {
  readonly #settled = Promise.withResolvers<void>();
  readonly opened: Promise<void> = this.#settled.promise;
  open(): void {
    this.#settled.resolve();
  }
}

/** A store with scripted faults around any other. */
export class FaultyStore implements ObjectStore {
  readonly #store: ObjectStore;
  readonly #late = new Set<Promise<unknown>>();
  /** May be exchanged at any time. */
  faults: Faults;

  constructor(store: ObjectStore, faults: Faults = () => undefined) {
    this.#store = store;
    this.faults = faults;
  }

  get name(): string {
    return this.#store.name;
  }

  async create(key: string, body: Uint8Array | (() => Readable), signal: AbortSignal): Promise<'created' | 'exists'> {
    const fault = this.faults('create', key);
    if (fault?.kind === 'lie') return fault.answer;
    if (fault?.kind === 'late') {
      // Copied now: the caller may give its buffer away as soon as it hears of the failure.
      const bytes = await collect(body, signal);
      this.#landLate(key, bytes, fault.until);
      throw failed('create', key);
    }
    return this.#with(fault, 'create', key, () => this.#store.create(key, body, signal), signal);
  }

  read(key: string, range?: ByteRange): Promise<Readable> {
    return this.#with(this.faults('read', key), 'read', key, () => this.#store.read(key, range));
  }

  readStart(key: string, maxBytes: number): Promise<Buffer> {
    return this.#with(this.faults('readStart', key), 'readStart', key, () => this.#store.readStart(key, maxBytes));
  }

  head(key: string): Promise<ObjectInfo | null> {
    return this.#with(this.faults('head', key), 'head', key, () => this.#store.head(key));
  }

  async *list(prefix: string, from?: { after?: string; delimiter?: '/' }): AsyncIterable<ObjectInfo> {
    const fault = this.faults('list', prefix);
    if (fault?.kind === 'after') {
      // Ambiguity means nothing to a reader; a listing that breaks off half-way does.
      yield* firstOf(this.#store.list(prefix, from));
      throw fault.error ?? failed('list', prefix);
    }
    await this.#with(fault, 'list', prefix, async () => undefined);
    yield* this.#store.list(prefix, from);
  }

  delete(keys: readonly string[]): Promise<void> {
    const key = keys[0] ?? '';
    return this.#with(this.faults('delete', key), 'delete', key, () => this.#store.delete(keys));
  }

  capacity(): Promise<Capacity | null> {
    return this.#store.capacity();
  }

  /** Waits until every late write whose gate is open has landed or failed. */
  async landed(): Promise<void> {
    await Promise.allSettled([...this.#late]);
  }

  #landLate(key: string, bytes: Buffer, until: Promise<unknown>): void {
    const landing = until
      .then(() => this.#store.create(key, bytes, new AbortController().signal))
      .catch(() => undefined) // the network keeps such failures to itself
      .finally(() => this.#late.delete(landing));
    this.#late.add(landing);
  }

  async #with<T>(
    fault: Fault | undefined,
    operation: Operation,
    key: string,
    carryOut: () => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    switch (fault?.kind) {
      case undefined:
        return carryOut();
      case 'before':
        throw fault.error ?? failed(operation, key);
      case 'after':
        await carryOut();
        throw fault.error ?? failed(operation, key);
      case 'full':
        throw new ShipmateError(`can't ${operation} ${key}: no space left (injected)`, {
          code: 'STORE_FULL',
          verdict: 'retry',
          hint: 'make room in the store',
        });
      case 'delay':
        await unlessAborted(fault.until, signal);
        return carryOut();
      case 'lost':
        return unlessAborted(new Promise<never>(() => {}), signal);
      case 'late':
      case 'lie':
        throw new TypeError(`a fault of kind ${fault.kind} is for create, not ${operation}`);
    }
  }
}

function failed(operation: Operation, key: string): ShipmateError {
  return new ShipmateError(`can't ${operation} ${key}: input/output error (injected)`, {
    code: 'STORE_FAILED',
    verdict: 'retry',
    hint: 'look at the store',
  });
}

async function* firstOf(entries: AsyncIterable<ObjectInfo>): AsyncIterable<ObjectInfo> {
  for await (const entry of entries) {
    yield entry;
    return;
  }
}

async function unlessAborted<T>(wait: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return wait;
  if (signal.aborted) throw abortReason(signal);
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(abortReason(signal));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([wait, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** One kind of fault, as a control file switches it on in another process. */
export interface FaultRule {
  /** error: STORE_FAILED, nothing done; ambiguous: done, and STORE_FAILED; slow: done after `slowMs`. */
  readonly kind: 'error' | 'full' | 'slow' | 'ambiguous';
  /** Of 1; default 1: always. */
  readonly probability?: number;
  /** Default: create only. */
  readonly operations?: readonly Operation[];
  /** Only keys that contain this. */
  readonly match?: string;
  /** For `slow`. */
  readonly slowMs?: number;
}

export interface FaultPlan {
  readonly seed: number;
  /** The first that applies and whose dice fall so. */
  readonly rules: readonly FaultRule[];
}

/** Switches faults in a process that runs `faultyStoreFromFile` on this file, from its next operation on. */
export function switchFaults(controlFile: string, plan: FaultPlan): void {
  const written = `${controlFile}.${process.pid}`;
  writeFileSync(written, JSON.stringify(plan));
  renameSync(written, controlFile);
}

/** A faulty store ruled by a FaultPlan in a JSON file, looked at before each operation; without the file, no faults. */
export function faultyStoreFromFile(store: ObjectStore, controlFile: string): FaultyStore {
  let version = '';
  let rules: readonly FaultRule[] = [];
  let random = seededRandom(0);
  return new FaultyStore(store, (operation, key) => {
    const found = versionOf(controlFile);
    if (found !== version) {
      version = found;
      const plan: FaultPlan = found === '' ? { seed: 0, rules: [] } : JSON.parse(readFileSync(controlFile, 'utf8'));
      rules = plan.rules;
      random = seededRandom(plan.seed);
    }
    const rule = rules.find(
      ({ operations = ['create'], match = '', probability = 1 }) =>
        operations.includes(operation) && key.includes(match) && random() < probability,
    );
    return rule && toFault(rule);
  });
}

function toFault({ kind, slowMs = 0 }: FaultRule): Fault {
  switch (kind) {
    case 'error':
      return { kind: 'before' };
    case 'full':
      return { kind: 'full' };
    case 'slow':
      return { kind: 'delay', until: sleep(slowMs) };
    case 'ambiguous':
      return { kind: 'after' };
  }
}

/** Changes whenever the file is replaced; empty while it is absent. */
function versionOf(file: string): string {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? '' : `${stat.ino}/${stat.mtimeNs}/${stat.size}`;
}

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
