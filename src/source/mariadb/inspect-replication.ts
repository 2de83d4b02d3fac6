import type { Finding } from '../source.ts';
import { isOn, type Replication, type ServerFacts } from './server-facts.ts';

type Variables = ServerFacts['variables'];
/** MySQL since 8.0.26 has the second names as well. */
const logsUpdates = (variables: Variables) =>
  isOn(variables, 'log_slave_updates') || isOn(variables, 'log_replica_updates');

/**
 * Why the binlogs of a replica lack what its primary's have, so that its twin must not take over however well the rest
 * fits; null where they lack nothing.
 */
export function lackingLog(variables: Variables, replication: readonly Replication[]): string | null {
  if (replication.length === 0) return null;
  if (!logsUpdates(variables)) {
    return 'the server is a replica with log_slave_updates off: its binlogs lack what it replicates, so it can never take over';
  }
  const filters = replication.flatMap(({ filters: some }) => some);
  if (filters.length === 0) return null;
  return `the server is a replica that filters (${filters.join(', ')}): its binlogs lack what it leaves out, so it can't take over`;
}

/** What a server of a replication pair owes to the archive. */
export function replicationFindings({ variables, status, replication }: ServerFacts): Finding[] {
  if (replication === null) {
    return [
      {
        level: 'warning',
        message: 'the user of "url:" may not see whether the server replicates from another',
        hint: 'GRANT REPLICA MONITOR, BINLOG MONITOR (MariaDB) or REPLICATION CLIENT (MySQL) ON *.* to that user',
      },
    ];
  }
  const isReplica = replication.length > 0;
  const replicas = Number(status.get('slaves_connected') ?? 0);
  const findings = isReplica ? replicaFindings(variables, replication) : primaryFindings(variables);
  if (!isReplica && replicas === 0) return findings;
  return [...findings, ...strictFindings(variables), ...semiSyncFindings({ variables, status }, isReplica)];
}

function primaryFindings(variables: Variables): Finding[] {
  const state = isOn(variables, 'read_only') ? 'read-only' : 'writable';
  return [{ level: 'ok', message: `the server is ${state}, and replicates from no other` }];
}

function replicaFindings(variables: Variables, replication: readonly Replication[]): Finding[] {
  const lacking = lackingLog(variables, replication);
  const findings: Finding[] = [
    lacking === null
      ? { level: 'ok', message: 'the server is a replica, and logs what it replicates' }
      : { level: 'error', message: lacking, hint: logsUpdates(variables) ? NO_FILTERS : LOG_UPDATES },
  ];
  if (!isOn(variables, 'read_only')) {
    findings.push({
      level: 'warning',
      message: 'the server is a replica that can be written to: a write there is in no other server, and forks its log',
      hint: 'SET GLOBAL read_only = ON, and in the configuration',
    });
  }
  const own = Number(variables.get('server_id'));
  return [...findings, ...replication.flatMap((one) => connectionFindings(one, own))];
}

const LOG_UPDATES = 'set log_slave_updates = ON and restart the server';
const NO_FILTERS =
  "STOP SLAVE; SET GLOBAL replicate_… = '' for each; START SLAVE; and take them out of the configuration. What the filters " +
  'kept away is missing here: build the replica anew';

function connectionFindings(replication: Replication, ownServerId: number): Finding[] {
  const { from, usesGtid, stopped, primaryServerId } = replication;
  const findings: Finding[] = [];
  if (primaryServerId === ownServerId) {
    findings.push({
      level: 'error',
      message: `both this server and ${from} have server_id ${ownServerId}: their binlogs can't be told apart`,
      hint: 'give every server a server_id of its own, and restart it',
    });
  }
  if (!usesGtid) {
    findings.push({
      level: 'warning',
      message: `replication from ${from} goes by file and offset: after a failover nobody can say what is missing where`,
      hint: 'STOP SLAVE; CHANGE MASTER TO MASTER_USE_GTID = slave_pos; START SLAVE',
    });
  }
  if (stopped !== null) {
    findings.push({
      level: 'warning',
      message: `replication from ${from} stands still: ${stopped}`,
      hint: "until it goes on this twin falls behind and can't take over: see SHOW ALL SLAVES STATUS, then START SLAVE",
    });
  }
  return findings;
}

function strictFindings(variables: Variables): Finding[] {
  if (!variables.has('gtid_strict_mode') || isOn(variables, 'gtid_strict_mode')) return [];
  return [
    {
      level: 'warning',
      message:
        'gtid_strict_mode is off: after an errant write on a replica two transactions can bear one number, and nothing stops',
      hint: 'SET GLOBAL gtid_strict_mode = ON on both servers, and in the configuration',
    },
  ];
}

function semiSyncFindings(
  { variables, status }: Pick<ServerFacts, 'variables' | 'status'>,
  isReplica: boolean,
): Finding[] {
  const side = isReplica ? 'slave' : 'master';
  const setting = `rpl_semi_sync_${side}_enabled`;
  if (!variables.has(setting)) return [];
  if (!isOn(variables, setting)) {
    return [
      {
        level: 'warning',
        message: `semi-sync replication is off (${setting}): ${LAST_TRANSACTIONS}`,
        hint:
          'on both servers SET GLOBAL rpl_semi_sync_master_enabled = ON, rpl_semi_sync_slave_enabled = ON, and in the ' +
          'configuration; then on the replica STOP SLAVE IO_THREAD; START SLAVE IO_THREAD. See docs/mariadb.md',
      },
    ];
  }
  if (isOn(status, `rpl_semi_sync_${side}_status`)) return [{ level: 'ok', message: 'semi-sync replication is on' }];
  return [
    {
      level: 'warning',
      message: `semi-sync replication is enabled, but not in effect just now: ${LAST_TRANSACTIONS}`,
      hint: isReplica
        ? 'STOP SLAVE IO_THREAD; START SLAVE IO_THREAD'
        : 'no replica answered in time (rpl_semi_sync_master_timeout): look at SHOW ALL SLAVES STATUS on the replica',
    },
  ];
}

const LAST_TRANSACTIONS =
  "if the primary's host dies, the last transactions that it acknowledged may be on no other server; where its twin had " +
  'shipped them they are in the archive, but as the dead tail of a fork';
