import type { Command } from 'commander';
import type { Coordination, Overview, TwinStream } from '../coordination/coordination.ts';
import { ShipmateError } from '../errors.ts';
import { checkStream, operator, withCoordination } from './coordination.ts';
import { addHelp, STREAM } from './help.ts';
import { confirm, print, printable, requireTerminal } from './terminal.ts';

/** The answer comes when the new term is open: as long as a slow store may take for two small objects. */
const ANSWER_MS = 30_000;

export interface Decision {
  readonly kind: 'accept-gap' | 'accept-fork';
  /** The result of `locate` that it is about: twins report it at the start of their reason. */
  readonly result: 'gap' | 'fork';
  /** What accepting it means, for the operator to say yes to. */
  readonly consequence: string;
}

/** Shows what a twin reports and what accepting it means, asks, and tells the daemons. */
export function defineDecision(command: Command, decision: Decision): void {
  addHelp(command, {
    notes: ['Says what it means, and asks. A twin must report it first: see "shipmate status".'],
    examples: [`shipmate ${decision.kind} orders`],
  });
  command
    .argument('<stream>', STREAM)
    .option('--yes', 'do not ask')
    .action(async (stream: string, { yes = false }: { yes?: boolean }) => {
      requireTerminal({ yes });
      await withCoordination(command, async (coordination, config) => {
        const overview = await coordination.overview();
        checkStream(stream, config, overview);
        const { lines, head } = explain(overview, stream, decision);
        print(lines.map(printable).join('\n'));
        if (!(await confirm(`${decision.kind} ${stream}?`, { yes }))) {
          throw failed(decision, `stream ${stream} stays as it is`, 'answer y, or give --yes, to go on');
        }
        print(await decide(coordination, stream, decision, head));
      });
    });
}

interface Explained {
  readonly lines: string[];
  /** Digest of the archive's head that the operator is shown; null where etcd holds no cursor. */
  readonly head: string | null;
}

/** What is known about the stream. Throws a ShipmateError if there is nothing to accept. */
export function explain({ streams, twins }: Overview, stream: string, decision: Decision): Explained {
  const told = twins.flatMap(({ node, streams: all }) =>
    all.filter(({ name }) => name === stream).map((twin) => ({ node, ...twin })),
  );
  const leader = told.find(({ role, ready }) => role === 'master' && ready);
  if (leader) {
    throw failed(
      decision,
      `${leader.node} leads stream ${stream}: there is nothing to accept`,
      'see "shipmate status"',
    );
  }
  const reporters = told.filter((twin) => reports(twin, decision.result));
  if (reporters.length === 0) {
    throw failed(decision, `no twin of stream ${stream} reports a ${decision.result}`, 'see "shipmate status"');
  }
  const cursor = streams.find(({ name }) => name === stream)?.cursor ?? null;
  const position = cursor?.position;
  return {
    head: cursor?.digest ?? null,
    lines: [
      cursor
        ? `The archive of ${stream} ends in term ${cursor.term}, slot ${cursor.slot}, ${
            position ? `at ${position.id || 'no ID yet'} (${position.segment}:${position.offset})` : 'without a byte'
          }, head ${cursor.digest.slice(0, 12)}.`
        : `Where the archive of ${stream} ends is not in etcd; the daemons know it from the store.`,
      ...reporters.map(({ node, reason }) => `${node}: ${reason}`),
      decision.consequence,
    ],
  };
}

const reports = ({ reason, ready }: TwinStream, result: string) => !ready && new RegExp(`^${result}\\b`).test(reason);

async function decide(
  coordination: Coordination,
  stream: string,
  decision: Decision,
  head: string | null,
): Promise<string> {
  const request = {
    kind: decision.kind,
    ...(head !== null && { head }),
    by: operator(),
    time: new Date().toISOString(),
  };
  const answer = await coordination.requests.ask(stream, request, ANSWER_MS);
  if (answer === null) {
    const message = `no daemon has gone on with stream ${stream} within ${ANSWER_MS / 1000} s`;
    throw failed(
      decision,
      message,
      'see "shipmate status": whether a daemon is alive, and what keeps each from going on',
    );
  }
  if (!answer.ok) throw failed(decision, `stream ${stream}: ${answer.message}`, 'see "shipmate status"');
  return answer.message;
}

function failed({ kind }: Decision, message: string, hint?: string): ShipmateError {
  return new ShipmateError(message, { code: kind === 'accept-gap' ? 'ACCEPT_GAP_FAILED' : 'ACCEPT_FORK_FAILED', hint });
}
