import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Role } from './coordination/coordination.ts';
import type { Result } from './core/header.ts';
import { RESULTS } from './core/header.ts';
import { CLASSES } from './core/limits.ts';
import { COPY_STATES, type CopyStatus, type StatusReport } from './core/status.ts';

const ROLES: readonly Role[] = ['starting', 'standby', 'taking-over', 'master', 'leaving', 'stopped'];

/** What became of one create in a store. `exists` with our digest is a success that had been reported as a failure. */
export type UploadOutcome = (typeof OUTCOMES)[number];
const OUTCOMES = ['created', 'exists', 'failed'] as const;

/**
 * What an operator must look at while it stands. The first six are parts that fail and are tried again; the others are
 * findings about the archive and the config.
 */
export const ALARMS = [
  ...(['store', 'source', 'coordination', 'acknowledge', 'archive', 'readiness'] as const),
  ...(['gap', 'fork', 'archive-id', 'foreign-object', 'promoted'] as const),
  ...(['copy-failing', 'copy-diverged', 'too-few-copies'] as const),
] as const;
export type Alarm = (typeof ALARMS)[number];

/** One stream's numbers, named after what happens to it. */
export interface StreamMetrics {
  role(role: Role): void;
  /** What `locate` says against the newest cursor, and whether this twin could take over (or is master) now. */
  readiness(state: { readonly ready: boolean; readonly result: Result | null }): void;
  cursor(place: { readonly term: number; readonly slot: number }): void;
  /** From the cursor to this twin's own end of the log; null where it is not known. */
  lag(lag: { readonly bytes: number | null; readonly seconds: number | null }): void;
  /** A chunk became durable. `writeToDurableMs` is the age of its oldest event; null where the log carries no time. */
  shipped(chunk: { plainBytes: number; storedBytes: number; writeToDurableMs: number | null }): void;
  /** The stream writes to this store: its counters begin at zero. */
  store(name: string): void;
  upload(store: string, upload: { readonly outcome: UploadOutcome; readonly tookMs: number }): void;
  /** How the copies stand; of none while another twin makes them. */
  copies(copies: readonly CopyStatus[]): void;
  tookOver(result: Result): void;
  deposed(): void;
  /** Handed to a twin that was far ahead for long. */
  handedOn(): void;
  /** What `check` would warn of now. */
  findings(count: { readonly warnings: number; readonly errors: number }): void;
  /** Disk that purged segments still take because their descriptors are held. */
  held(bytes: number): void;
  /** How much log the database keeps, at the most, while it is not shipped; null: without a limit, or it does not tell. */
  retention(limit: { readonly bytes: number | null; readonly seconds: number | null }): void;
  alarm(name: Alarm, stands: boolean): void;
}

/** What is sent to stores, of all streams together; classes are `shipping`, `slow`, … */
export interface BandwidthMetrics {
  /** Bytes that may be sent from now on, and how long they waited for that. */
  sent(sent: { readonly name: string; readonly bytes: number; readonly waitedMs: number }): void;
  /** Bytes a second; null: nothing is limited. */
  limits(rates: { readonly link: number; readonly guaranteed: Readonly<Record<string, number>> } | null): void;
  /** How many changes that operators asked for can't be honoured now. */
  refused(count: number): void;
}

/** The daemon's numbers for Prometheus. Nothing is registered globally: several can live in one process. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #ofStreams = new Registry();
  readonly #streams: StreamCollectors;
  readonly #shown = new Set<string>();
  readonly #reachable: Gauge;
  readonly #leaseRemaining: Gauge;
  readonly #certificates: Gauge;
  readonly #reloadSuccessful: Gauge;
  readonly #reloadSuccess: Gauge;
  readonly bandwidth: BandwidthMetrics;

  /** A stream's numbers carry the cluster's name: two clusters with a stream `orders` are not to be taken for one. */
  constructor({ version, node, cluster }: { version: string; node: string; cluster: string }) {
    const registers = [this.#registry];
    this.#ofStreams.setDefaultLabels({ cluster });
    collectDefaultMetrics({ register: this.#registry });
    new Gauge({
      name: 'shipmate_build_info',
      help: 'Always 1; what this daemon is as labels.',
      labelNames: ['version', 'node', 'cluster'],
      registers,
    }).set({ version, node, cluster }, 1);
    this.#reachable = new Gauge({
      name: 'shipmate_coordination_reachable',
      help: 'Whether etcd answers (always 1 in solo mode).',
      registers,
    });
    this.#leaseRemaining = new Gauge({
      name: 'shipmate_lease_remaining_seconds',
      help: 'Until the etcd lease runs out, by our own clock; 0 or less when it has. Absent without a lease.',
      registers,
    });
    this.#leaseRemaining.remove();
    this.#certificates = new Gauge({
      name: 'shipmate_certificate_expiry_timestamp_seconds',
      help: 'When a certificate that is shown to etcd, or by which etcd is known, expires; of several in a file the last to do so.',
      labelNames: ['certificate'],
      registers,
    });
    this.#reloadSuccessful = new Gauge({
      name: 'shipmate_config_last_reload_successful',
      help: 'Whether the config was taken over when it was last read: 0 while an older one is in force.',
      registers,
    });
    this.#reloadSuccess = new Gauge({
      name: 'shipmate_config_last_reload_success_timestamp_seconds',
      help: 'When the config that is in force was read.',
      registers,
    });
    this.reloaded(true);
    this.bandwidth = bandwidthMetrics(registers);
    this.#streams = streamCollectors([this.#ofStreams]);
  }

  coordination({ reachable, leaseRemainingMs }: { reachable: boolean; leaseRemainingMs: number | null }): void {
    this.#reachable.set(reachable ? 1 : 0);
    setOrRemove(this.#leaseRemaining, {}, leaseRemainingMs === null ? null : leaseRemainingMs / 1000);
  }

  /** The config was read: taken over, or refused. */
  reloaded(successfully: boolean): void {
    this.#reloadSuccessful.set(successfully ? 1 : 0);
    if (successfully) this.#reloadSuccess.setToCurrentTime();
  }

  /** By what they are in the config, `ca` and `cert`, to when they expire, milliseconds since 1970. */
  certificates(expiries: ReadonlyMap<string, number>): void {
    this.#certificates.reset();
    for (const [certificate, ms] of expiries) this.#certificates.set({ certificate }, ms / 1000);
  }

  /** What the twins told of this daemon's streams; null: they can't be asked now. `twins`: whether there should be any. */
  told(report: Pick<StatusReport, 'streams'> | null, { twins: counts }: { readonly twins: boolean }): void {
    const { streamLagBytes, streamLagSeconds, twins } = this.#streams;
    for (const stream of this.#shown) {
      const told = report?.streams.find(({ name }) => name === stream);
      setOrRemove(streamLagBytes, { stream }, told?.lagBytes ?? null);
      setOrRemove(streamLagSeconds, { stream }, told?.lagSeconds ?? null);
      setOrRemove(twins, { stream }, told && counts ? told.twins.length : null);
    }
  }

  /** Takes away all that is shown of a stream. To be called when nothing of it runs any more. */
  async forget(stream: string): Promise<void> {
    this.#shown.delete(stream);
    for (const collector of Object.values(this.#streams)) {
      for (const { labels } of (await collector.get()).values) {
        const { le: _, ...own } = { le: '', ...labels };
        if (labels.stream === stream) collector.remove(own);
      }
    }
  }

  /** What is counted begins at zero, so that the first of a kind is seen as an increase. */
  stream(stream: string): StreamMetrics {
    const all = this.#streams;
    this.#shown.add(stream);
    beginAtZero(all, stream);
    let shownCopies: readonly string[] = [];
    const oneOf = <T extends string>(gauge: Gauge, label: string, values: readonly T[], now: T | null) => {
      for (const value of values) gauge.set({ stream, [label]: value }, value === now ? 1 : 0);
    };
    return {
      role: (role) => oneOf(all.role, 'role', ROLES, role),
      readiness({ ready, result }) {
        all.ready.set({ stream }, ready ? 1 : 0);
        oneOf(all.located, 'result', RESULTS, result);
      },
      cursor({ term, slot }) {
        all.term.set({ stream }, term);
        all.slot.set({ stream }, slot);
      },
      lag({ bytes, seconds }) {
        setOrRemove(all.lagBytes, { stream }, bytes);
        setOrRemove(all.lagSeconds, { stream }, seconds);
      },
      shipped({ plainBytes, storedBytes, writeToDurableMs }) {
        all.chunks.inc({ stream });
        all.plainBytes.inc({ stream }, plainBytes);
        all.storedBytes.inc({ stream }, storedBytes);
        if (writeToDurableMs !== null) all.writeToDurable.observe({ stream }, Math.max(0, writeToDurableMs) / 1000);
      },
      store(store) {
        for (const outcome of OUTCOMES) all.uploads.inc({ stream, store, outcome }, 0);
        all.uploadDuration.zero({ stream, store });
      },
      upload(store, { outcome, tookMs }) {
        all.uploads.inc({ stream, store, outcome });
        all.uploadDuration.observe({ stream, store }, tookMs / 1000);
      },
      copies(copies) {
        for (const name of shownCopies) if (!copies.some((copy) => copy.name === name)) forgetCopy(all, stream, name);
        shownCopies = copies.map(({ name }) => name);
        for (const { name: store, state, lagBytes, lagSeconds } of copies) {
          setOrRemove(all.copyLagBytes, { stream, store }, lagBytes);
          setOrRemove(all.copyLagSeconds, { stream, store }, lagSeconds);
          for (const one of COPY_STATES) all.copyState.set({ stream, store, state: one }, one === state ? 1 : 0);
        }
      },
      tookOver: (result) => all.takeOvers.inc({ stream, result }),
      deposed: () => all.deposed.inc({ stream }),
      handedOn: () => all.handedOn.inc({ stream }),
      findings({ warnings, errors }) {
        all.findings.set({ stream, level: 'warning' }, warnings);
        all.findings.set({ stream, level: 'error' }, errors);
      },
      held: (bytes) => all.held.set({ stream }, bytes),
      retention({ bytes, seconds }) {
        setOrRemove(all.retentionBytes, { stream }, bytes);
        setOrRemove(all.retentionSeconds, { stream }, seconds);
      },
      alarm: (alarm, stands) => all.alarm.set({ stream, alarm }, stands ? 1 : 0),
    };
  }

  /** In Prometheus' text format. */
  async text(): Promise<string> {
    return `${await this.#registry.metrics()}\n${await this.#ofStreams.metrics()}`;
  }
}

type StreamCollectors = ReturnType<typeof streamCollectors>;

function beginAtZero(all: StreamCollectors, stream: string): void {
  const { chunks, plainBytes, storedBytes, deposed, handedOn, takeOvers, alarm: alarms, writeToDurable } = all;
  for (const counter of [chunks, plainBytes, storedBytes, deposed, handedOn]) counter.inc({ stream }, 0);
  for (const result of RESULTS) takeOvers.inc({ stream, result }, 0);
  for (const alarm of ALARMS) alarms.set({ stream, alarm }, 0);
  writeToDurable.zero({ stream });
}

function forgetCopy(all: StreamCollectors, stream: string, store: string): void {
  all.copyLagBytes.remove({ stream, store });
  all.copyLagSeconds.remove({ stream, store });
  for (const state of COPY_STATES) all.copyState.remove({ stream, store, state });
}

function bandwidthMetrics(registers: Registry[]): BandwidthMetrics {
  const of = { labelNames: ['class'], registers };
  const bytes = new Counter({
    name: 'shipmate_bandwidth_bytes_total',
    help: 'Bytes sent to stores, by bandwidth class.',
    ...of,
  });
  const waited = new Counter({
    name: 'shipmate_bandwidth_waited_seconds_total',
    help: 'How long chunks waited to be sent, each by itself.',
    ...of,
  });
  const limit = new Gauge({
    name: 'shipmate_bandwidth_limit_bytes',
    help: 'Bytes a second that a class is guaranteed, and of the link (class="link") what it carries. Absent without limits.',
    ...of,
  });
  const refused = new Gauge({
    name: 'shipmate_bandwidth_refused',
    help: 'Changes of the limits by operators that are without effect, since they can not be honoured now.',
    registers,
  });
  for (const name of ['shipping', ...CLASSES]) for (const counter of [bytes, waited]) counter.inc({ class: name }, 0);
  return {
    sent({ name, bytes: count, waitedMs }) {
      bytes.inc({ class: name }, count);
      waited.inc({ class: name }, waitedMs / 1000);
    },
    limits(rates) {
      limit.reset();
      for (const [name, rate] of Object.entries(rates ? { link: rates.link, ...rates.guaranteed } : {})) {
        limit.set({ class: name }, rate);
      }
    },
    refused: (count) => refused.set(count),
  };
}

function setOrRemove(gauge: Gauge, labels: Record<string, string>, value: number | null): void {
  if (value === null) gauge.remove(labels);
  else gauge.set(labels, value);
}

/** From the fastest local store to a chunk that waited out an outage. */
const DURABLE_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const UPLOAD_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

function streamCollectors(registers: Registry[]) {
  const gauge = (name: string, help: string, ...labels: string[]) =>
    new Gauge({ name: `shipmate_${name}`, help, labelNames: ['stream', ...labels], registers });
  const counter = (name: string, help: string, ...labels: string[]) =>
    new Counter({ name: `shipmate_${name}`, help, labelNames: ['stream', ...labels], registers });
  const histogram = (name: string, help: string, buckets: number[], ...labels: string[]) =>
    new Histogram({ name: `shipmate_${name}`, help, labelNames: ['stream', ...labels], buckets, registers });
  return {
    role: gauge('role', 'The role of this twin: 1 for the one that it has.', 'role'),
    ready: gauge('ready', 'Whether this twin is master or could take over now.'),
    located: gauge('locate_result', 'How this twin would go on from the cursor: 1 for what holds now.', 'result'),
    term: gauge('term', 'Term of the cursor.'),
    slot: gauge('cursor_slot', 'Slot of the cursor in its term.'),
    lagBytes: gauge('lag_bytes', 'Log bytes of this twin that are not durable in the primary store.'),
    lagSeconds: gauge('lag_seconds', 'Age of the oldest log byte of this twin that is not durable.'),
    streamLagBytes: gauge(
      'stream_lag_bytes',
      'Log bytes that are not durable in the primary store, of the twin whose log goes furthest.',
    ),
    streamLagSeconds: gauge('stream_lag_seconds', 'Age of the oldest log byte of any twin that is not durable.'),
    twins: gauge('twins', 'Daemons that have this stream and are alive, as etcd has it.'),
    retentionBytes: gauge(
      'source_retention_bytes',
      'Log that the database keeps before it removes what is not shipped. Absent without such a limit.',
    ),
    retentionSeconds: gauge(
      'source_retention_seconds',
      'How long the database keeps its log, shipped or not. Absent without such a limit.',
    ),
    chunks: counter('chunks_total', 'Chunks made durable by this daemon.'),
    plainBytes: counter('plain_bytes_total', 'Log bytes made durable by this daemon.'),
    storedBytes: counter('stored_bytes_total', 'Bytes that this log takes in the primary store.'),
    writeToDurable: histogram(
      'write_to_durable_seconds',
      'From the oldest event of a chunk to its being durable in the primary store.',
      DURABLE_SECONDS,
    ),
    uploads: counter('uploads_total', 'Creates in a store, by outcome.', 'store', 'outcome'),
    uploadDuration: histogram('upload_duration_seconds', 'How long a create in a store took.', UPLOAD_SECONDS, 'store'),
    copyLagBytes: gauge('copy_lag_bytes', 'Bytes of objects that are due in a copy and not there.', 'store'),
    copyLagSeconds: gauge('copy_lag_seconds', 'How long the first object that a copy lacks has been due.', 'store'),
    copyState: gauge('copy_state', 'How a copy stands: 1 for what holds now.', 'store', 'state'),
    takeOvers: counter('take_overs_total', 'Terms opened by this daemon, by how they go on.', 'result'),
    deposed: counter('deposed_total', 'Terms that ended on proof that another daemon owns the next one.'),
    handedOn: counter('handed_on_total', 'Terms handed to a twin that was far ahead for long.'),
    findings: gauge('findings', 'What `shipmate check` would say of the source now, by level.', 'level'),
    held: gauge('held_bytes', 'Disk taken by purged segments whose descriptors are still held.'),
    alarm: gauge('alarm', 'Conditions that need an operator: 1 while one stands.', 'alarm'),
  };
}
