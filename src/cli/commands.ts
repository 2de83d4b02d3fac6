import type { Command } from 'commander';

/** Gives a command its arguments, options and action. An action throws what went wrong; main prints it. */
export type Define = (command: Command) => void;

export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  /** Loaded only when the command line names the command, so that --help and cheap commands start fast. */
  load(): Promise<Define>;
}

/** Every command, in the order of --help. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: 'run',
    summary: 'the daemon: follows its streams, and ships those that it leads',
    load: async () => (await import('./run.ts')).defineRun,
  },
  {
    name: 'check',
    summary: 'config, rights, source settings, etcd, stores: what would go wrong, and the fix',
    load: async () => (await import('./check.ts')).defineCheck,
  },
  {
    name: 'setup',
    summary: 'looks at this host, asks little, writes a config and says what to run: SQL, grants, commands',
    load: async () => (await import('./setup.ts')).defineSetup,
  },
  {
    name: 'status',
    summary: 'who leads each stream, how far the archive is, and which twins could take over',
    load: async () => (await import('./status.ts')).defineStatus,
  },
  {
    name: 'ls',
    summary: 'what is in the archive: terms, what can be restored, gaps and forks',
    load: async () => (await import('./ls.ts')).defineLs,
  },
  {
    name: 'restore',
    summary: "writes the log's files, byte for byte, up to the end, a time or an ID",
    load: async () => (await import('./restore.ts')).defineRestore,
  },
  {
    name: 'verify',
    summary: 'whether the archive is whole: the chain, and with --deep every digest',
    load: async () => (await import('./verify.ts')).defineVerify,
  },
  {
    name: 'fetch',
    summary: "PostgreSQL's restore_command: a WAL segment or history file, by name",
    load: async () => (await import('./fetch.ts')).defineFetch,
  },
  {
    name: 'push',
    summary: "PostgreSQL's archive_command: waits until a file of its WAL is durable in the archive",
    load: async () => (await import('./push.ts')).definePush,
  },
  {
    name: 'handover',
    summary: 'the master of a stream gives it to a twin that is ready',
    load: async () => (await import('./handover.ts')).defineHandover,
  },
  {
    name: 'drain',
    summary: 'waits until the databases here have stopped and their logs are shipped; before the daemon is stopped',
    load: async () => (await import('./drain.ts')).defineDrain,
  },
  {
    name: 'limits',
    summary: 'how much may be sent to stores, and was; changes it for a time',
    load: async () => (await import('./limits.ts')).defineLimits,
  },
  {
    name: 'accept-gap',
    summary: 'lets a stream go on after bytes that the database purged before they were shipped',
    load: async () => (await import('./accept-gap.ts')).defineAcceptGap,
  },
  {
    name: 'accept-fork',
    summary: 'lets a stream go on from a database that never had the end of its archive',
    load: async () => (await import('./accept-fork.ts')).defineAcceptFork,
  },
  {
    name: 'promote',
    summary: 'makes a copy the primary, when the primary store is lost',
    load: async () => (await import('./promote.ts')).definePromote,
  },
  {
    name: 'adopt',
    summary: "makes what the store holds this cluster's archive of a stream, whatever was remembered",
    load: async () => (await import('./adopt.ts')).defineAdopt,
  },
  {
    name: 'prune',
    summary: 'deletes the log that nothing asks to keep, from the primary and, later, from its copies',
    load: async () => (await import('./prune.ts')).definePrune,
  },
  {
    name: 'repair',
    summary: "writes what is missing or damaged in one of an archive's stores from another",
    load: async () => (await import('./repair.ts')).defineRepair,
  },
  {
    name: 'config',
    summary: 'an example of the config file, and its JSON schema',
    load: async () => (await import('./config.ts')).defineConfig,
  },
];
