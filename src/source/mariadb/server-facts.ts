import type { Flavour } from './gtid.ts';
import { ifPermitted, type Query, type Row, withServer } from './sql.ts';

/** What a server says about itself: its settings and counters by lower-case name, and how it replicates. */
export interface ServerFacts {
  readonly variables: ReadonlyMap<string, string>;
  readonly status: ReadonlyMap<string, string>;
  /** What it replicates from, one entry a connection; null: the user may not see. */
  readonly replication: readonly Replication[] | null;
  /** Null: it writes none, the user may not see, or the server does not tell. */
  readonly binlog: BinlogStatus | null;
}

/** A server's own binlogs. */
export interface BinlogStatus {
  /** The name of the one that it writes now. */
  readonly file: string;
  /** Databases that they leave out, by setting. */
  readonly filters: readonly string[];
}

/** One connection to a primary. */
export interface Replication {
  /** `server 10.0.0.1:3306`. */
  readonly from: string;
  /** Settings that leave transactions out, `Replicate_Do_DB = shop`. */
  readonly filters: readonly string[];
  readonly usesGtid: boolean;
  /** Why it stands still; null while it runs. */
  readonly stopped: string | null;
  /** Null while it is not known. */
  readonly behindSeconds: number | null;
  readonly primaryServerId: number;
}

/** Whether a setting or counter is on, as either is written. */
export const isOn = (values: ReadonlyMap<string, string>, name: string) =>
  ['ON', '1'].includes(values.get(name)?.toUpperCase() ?? '');

const REPLICATION = { mariadb: 'SHOW ALL SLAVES STATUS', mysql: 'SHOW REPLICA STATUS' } as const;
const STATUS = "SHOW GLOBAL STATUS WHERE Variable_name LIKE 'rpl_semi_sync%' OR Variable_name = 'Slaves_connected'";

export function askServer(url: string, flavour: Flavour): Promise<ServerFacts> {
  return withServer(url, async (query) => ({
    variables: byName(await query('SHOW GLOBAL VARIABLES')),
    status: byName(await query(STATUS)),
    replication: await askReplication(query, flavour),
    binlog: flavour === 'mariadb' ? await ifPermitted(askBinlog(query)) : null,
  }));
}

async function askReplication(query: Query, flavour: Flavour): Promise<Replication[] | null> {
  const rows = await ifPermitted(query(REPLICATION[flavour]));
  return rows?.map(toReplication) ?? null;
}

async function askBinlog(query: Query): Promise<BinlogStatus | null> {
  const [row] = await query('SHOW MASTER STATUS');
  return row ? { file: String(row.File), filters: settings(row, /^Binlog_(do|ignore)_DB$/i) } : null;
}

function byName(rows: readonly Row[]): Map<string, string> {
  return new Map(rows.map(({ Variable_name, Value }) => [String(Variable_name).toLowerCase(), String(Value)]));
}

/** MySQL renamed the columns: Source for Master, Replica for Slave. */
function toReplication(row: Row): Replication {
  const text = (...names: string[]) => String(names.map((name) => row[name]).find((value) => value != null) ?? '');
  const behind = text('Seconds_Behind_Master', 'Seconds_Behind_Source');
  return {
    from: `server ${text('Master_Host', 'Source_Host')}:${text('Master_Port', 'Source_Port')}`,
    filters: settings(row, /^Replicate_/),
    usesGtid: row.Auto_Position === undefined ? text('Using_Gtid') !== 'No' : text('Auto_Position') === '1',
    stopped: whyStopped(text),
    behindSeconds: behind === '' ? null : Number(behind),
    primaryServerId: Number(text('Master_Server_Id', 'Source_Server_Id')),
  };
}

function whyStopped(text: (...names: string[]) => string): string | null {
  if (text('Slave_SQL_Running', 'Replica_SQL_Running') === 'No')
    return text('Last_SQL_Error') || 'its applier is stopped';
  if (text('Slave_IO_Running', 'Replica_IO_Running') !== 'Yes') return text('Last_IO_Error') || 'it is not connected';
  return null;
}

/** Those columns that are set: `Replicate_Do_DB = shop`. */
function settings(row: Row, names: RegExp): string[] {
  return Object.entries(row)
    .filter(([name, value]) => names.test(name) && !NOT_FILTERS.has(name) && value != null && value !== '')
    .map(([name, value]) => `${name} = ${value}`);
}

/** These choose no transactions: servers by id are left out to break circles. */
const NOT_FILTERS = new Set(['Replicate_Ignore_Server_Ids', 'Replicate_Rewrite_DB']);
