import type { Log } from '../../core/log.ts';
import { messageOf, ShipmateError } from '../../errors.ts';
import { lsnText, parseLsn } from './lsn.ts';
import type { PostgresServer } from './server.ts';
import type { Slot } from './server-state.ts';
import { sqlStateOf } from './sql-errors.ts';
import { segmentStartAt } from './wal-name.ts';

export interface SlotOptions {
  readonly server: PostgresServer;
  readonly name: string;
  readonly log: Log;
}

interface SlotRow {
  readonly slot_type: string;
  /** Null where it never reserved WAL, or lost it. */
  readonly restart_lsn: string | null;
  readonly wal_status: string | null;
}

const LOST = 'lost';

const LOOK = 'SELECT slot_type, restart_lsn::text, wal_status FROM pg_replication_slots WHERE slot_name = $1';
const CREATE = 'SELECT pg_create_physical_replication_slot($1, true)';
const ADVANCE = 'SELECT pg_replication_slot_advance($1, $2)';
const DROP = 'SELECT pg_drop_replication_slot($1)';

/** Where the slot is before, or other than, it should be. */
const NOT_IN_STATE = '55000';
/** The server removes whole segments, so that it need not be told more often; but a slot may vanish while nothing moves. */
const LOOK_EVERY_MS = 10_000;

/**
 * The slot that keeps what is not in the archive. What goes wrong with it is logged when it begins, never thrown: WAL that
 * nothing holds back is shipped all the same.
 */
export function openSlot(options: SlotOptions): Slot {
  return new OneSlot(options);
}

class OneSlot implements Slot {
  readonly #options: SlotOptions;
  #reached = -1n;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #trouble = '';
  #last: Promise<void> = Promise.resolve();

  constructor(options: SlotOptions) {
    this.#options = options;
  }

  advance(upTo: bigint): Promise<void> {
    return this.#inTurn(async () => {
      const segmentBytes = this.#options.server.known?.walSegmentBytes ?? 1;
      const reached = segmentStartAt(upTo, segmentBytes);
      if (reached === this.#reached && performance.now() - this.#lookedMs < LOOK_EVERY_MS) return;
      await this.#advance(upTo);
      this.#reached = reached;
    });
  }

  hold(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#present();
    });
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#last = this.#last.then(work).then(
      () => {
        this.#trouble = '';
      },
      (error) => this.#tell(error),
    );
    return this.#last;
  }

  async #advance(upTo: bigint): Promise<void> {
    const { server, name } = this.#options;
    const { restart_lsn } = await this.#present();
    if (restart_lsn === null || parseLsn(restart_lsn) >= upTo) return;
    try {
      // The server goes no further than it has flushed, or as a standby replayed, by itself.
      await server.query(ADVANCE, [name, lsnText(upTo)]);
    } catch (error) {
      // It stands at what the server would go to, or beyond.
      if (sqlStateOf(error) !== NOT_IN_STATE) throw error;
    }
  }

  /** The slot as it is, made where it is missing: neither a base backup nor pg_rewind keeps it. */
  async #present(): Promise<SlotRow> {
    const { server, name, log } = this.#options;
    const found = await this.#look();
    if (found && found.slot_type !== 'physical') throw otherSlot(name, found.slot_type);
    if (found?.restart_lsn && found.wal_status !== LOST) return found;
    if (found) {
      log.warn(`the replication slot ${name} held no WAL any more, and is made again`, {
        hint: 'where the archive has a gap now, raise max_slot_wal_keep_size',
      });
      await server.query(DROP, [name]);
    }
    await server.query(CREATE, [name]);
    const made = await this.#look();
    log.info(`made the replication slot ${name}`, { holdsFrom: made?.restart_lsn });
    return made ?? { slot_type: 'physical', restart_lsn: null, wal_status: null };
  }

  async #look(): Promise<SlotRow | undefined> {
    const { server, name } = this.#options;
    const [row] = await server.query<SlotRow>(LOOK, [name]);
    this.#lookedMs = performance.now();
    return row;
  }

  #tell(error: unknown): void {
    const { name, log } = this.#options;
    const trouble = messageOf(error);
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    const hint = HINTS[sqlStateOf(error) ?? ''] ?? (error instanceof ShipmateError ? error.hint : undefined);
    log.warn(`the replication slot ${name} does not hold the WAL that is not shipped: ${trouble}`, { hint });
  }
}

const HINTS: Readonly<Record<string, string>> = {
  '42501': 'ALTER ROLE the user of "url:" REPLICATION',
  '53400': 'raise max_replication_slots and restart the server, or drop a slot that nobody uses',
  [NOT_IN_STATE]: 'set wal_level = replica and max_replication_slots = 10, and restart the server',
  '55006': 'somebody streams by this slot: name another one with "slot:" in the config',
};

const otherSlot = (name: string, type: string) =>
  new ShipmateError(`${name} is a ${type} slot of somebody else`, {
    code: 'BAD_SERVER',
    hint: 'name another one with "slot:" in the config',
    verdict: 'retry',
  });
