import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { codeOf, isError, messageOf, ShipmateError } from '../../errors.ts';
import type { Replay, ReplayRun, ReplayTarget } from '../source.ts';
import { binlogBase } from './index-file.ts';

const execute = promisify(execFile);

/** Row events can be as large as the server takes them; binary mode keeps what is in BLOBs from being read as commands. */
const CLIENT_OPTIONS = ['--batch', '--binary-mode', '--max-allowed-packet=1G'];
/** Held while log is applied: a client whose starter was killed still works off what it was given. */
const LOCK = 'shipmate_replay';
const TAKE_LOCK = [
  'DELIMITER //',
  `BEGIN NOT ATOMIC IF GET_LOCK('${LOCK}', 0) <> 1 THEN`,
  "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'another replay is under way'; END IF; END//",
  'DELIMITER ;\n',
].join('\n');

/** Applies MariaDB's binlogs with mariadb-binlog and mariadb. */
export const mariadbReplay: Replay = {
  command(run, target) {
    const names = run.files.map(({ name }) => name);
    const areListable = names.every((name) => /^[\w.-]+$/.test(name));
    const files = areListable ? `$(cat ${indexOf(names[0] ?? '')})` : names.map(quoted).join(' ');
    const reader = ['mariadb-binlog', ...readerOptions(run)].map(quoted).join(' ');
    const client = ['mariadb', ...clientOptions(target)].map(quoted).join(' ');
    return `(set -o pipefail; cd ${quoted(run.directory)} && ${reader} ${files} | ${client})`;
  },

  async applied(target) {
    const sql = `SELECT @@log_bin, IS_FREE_LOCK('${LOCK}'), @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos`;
    const options = [...clientOptions(target), '--skip-column-names', `--execute=${sql}`];
    const { stdout } = await execute('mariadb', options).catch((error: unknown) => {
      throw clientFailed(isError(error) && 'stderr' in error ? String(error.stderr) : '', error);
    });
    const [logs = '', isFree = '', log = '', replicated = ''] = stdout.replace(/\n$/, '').split('\t');
    if (logs !== '1') throw keepsNoLog();
    if (isFree !== '1') throw isBusy();
    return { log: log.trim(), replicated: replicated.trim() };
  },

  async apply(run, target, onProgress) {
    const files = run.files.map(({ name }) => `./${name}`);
    const reader = spawn('mariadb-binlog', [...readerOptions(run), ...files], {
      cwd: run.directory,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const client = spawn('mariadb', clientOptions(target), { stdio: ['pipe', 'ignore', 'pipe'] });
    const [readerEnd, clientEnd] = [outcomeOf(reader), outcomeOf(client)];
    const position = new ReadPosition(run.files, onProgress);
    try {
      client.stdin.on('error', () => {}); // its exit tells why
      client.stdin.write(TAKE_LOCK);
      for await (const bytes of reader.stdout) {
        position.pass(bytes);
        if (client.stdin.write(bytes)) continue;
        await Promise.race([once(client.stdin, 'drain'), clientEnd]);
        if (client.exitCode !== null || client.signalCode !== null) break;
      }
      if (client.exitCode === null && (await readerEnd).code === 0) client.stdin.end();
      // At the end of its input it would carry out what came of a statement.
      else client.kill('SIGKILL');
      const failed = await clientEnd;
      if (failed.code !== 0 && failed.code !== null) throw clientFailed(failed.stderr, failed.cause);
      const read = await readerEnd;
      if (read.code !== 0) throw readerFailed(read.stderr, read.cause);
      if (failed.code !== 0) throw clientFailed(failed.stderr, failed.cause);
      position.end();
    } finally {
      reader.kill('SIGKILL');
      client.kill('SIGKILL');
      await Promise.all([readerEnd, clientEnd]);
    }
  },
};

/** The index of binlogs with such names. */
export const indexOf = (name: string) => `${binlogBase(name)}.index`;

/**
 * GTIDs of the log in a file that begins in its middle do not follow its own list: with the strict mode that would be an
 * error, and so would a domain in which nothing follows the start. Without it what is printed is just the same.
 */
function readerOptions({ after }: ReplayRun): string[] {
  return ['--no-defaults', ...(after === '' ? [] : ['--skip-gtid-strict-mode', `--start-position=${after}`])];
}

function clientOptions({ socket, user }: ReplayTarget): string[] {
  return [
    ...CLIENT_OPTIONS,
    ...(socket === undefined ? [] : [`--socket=${socket}`]),
    ...(user === undefined ? [] : [`--user=${user}`]),
  ];
}

const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

interface Outcome {
  /** Null where a signal ended it, or it could not be started. */
  readonly code: number | null;
  readonly stderr: string;
  readonly cause?: unknown;
}

async function outcomeOf(program: ChildProcess): Promise<Outcome> {
  const stderr = program.stderr ? text(program.stderr) : Promise.resolve('');
  try {
    const [code] = await once(program, 'close');
    return { code: typeof code === 'number' ? code : null, stderr: await stderr };
  } catch (cause) {
    return { code: null, stderr: messageOf(cause), cause };
  }
}

/** How far mariadb-binlog has come in its files, by the places that it prints before each event. */
class ReadPosition {
  readonly #files: ReplayRun['files'];
  readonly #onProgress: (bytes: number) => void;
  #rest: Buffer = Buffer.alloc(0);
  #file = -1;
  #before = 0;
  #told = 0;

  constructor(files: ReplayRun['files'], onProgress: (bytes: number) => void) {
    this.#files = files;
    this.#onProgress = onProgress;
  }

  pass(bytes: Buffer): void {
    const view = Buffer.concat([this.#rest, bytes]);
    for (let at = view.indexOf(FILE_START); at >= 0; at = view.indexOf(FILE_START, at + 1)) {
      if (this.#file >= 0) this.#before += this.#files[this.#file]?.bytes ?? 0;
      this.#file++;
    }
    const place = /^\n# at (\d+)\n/.exec(
      view.toString('latin1', Math.max(view.lastIndexOf('\n# at '), 0)).slice(0, 40),
    );
    if (place) this.#tell(this.#before + Number(place[1]));
    // No place is seen twice: the rest is shorter than what tells one.
    this.#rest = view.subarray(Math.max(0, view.length - FILE_START.length + 1));
  }

  end(): void {
    this.#tell(this.#files.reduce((sum, { bytes }) => sum + bytes, 0));
  }

  #tell(bytes: number): void {
    if (bytes > this.#told) this.#onProgress(bytes - this.#told);
    this.#told = Math.max(bytes, this.#told);
  }
}

const FILE_START = Buffer.from('\n# at 4\n');

function clientFailed(stderr: string, cause: unknown): ShipmateError {
  const error = firstError(stderr, cause);
  const wrong = TOO_LARGE.test(error)
    ? 'see that the server runs, with a max_allowed_packet as large as where the log comes from'
    : 'put right what the message names';
  return new ShipmateError(`mariadb failed: ${error}`, {
    code: 'REPLAY_FAILED',
    hint: `what was applied before stays; ${wrong}, and run the same command again: it goes on there`,
    cause,
  });
}

/** A server that is given more than its max_allowed_packet says so, or closes the connection in the middle of it. */
const TOO_LARGE = /max_allowed_packet|ERROR 2006|ERROR 2013/;

function readerFailed(stderr: string, cause: unknown): ShipmateError {
  return new ShipmateError(`mariadb-binlog failed: ${firstError(stderr, cause)}`, {
    code: 'REPLAY_FAILED',
    hint: 'a file that the server left torn in a crash ends the replay there: docs/restore.md, "A torn file"',
    cause,
  });
}

function firstError(stderr: string, cause: unknown): string {
  if (codeOf(cause) === 'ENOENT') return 'it is not installed, or not on the PATH';
  const lines = stderr.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('WARNING'));
  return lines.find((line) => line.startsWith('ERROR')) ?? lines[0] ?? messageOf(cause ?? 'it was ended');
}

const keepsNoLog = () =>
  new ShipmateError('the server keeps no binlog: nothing would tell what was applied', {
    code: 'REPLAY_REFUSED',
    hint: 'start it with --log-bin; or run the printed commands by hand, once, into a server that can be thrown away',
  });

const isBusy = () =>
  new ShipmateError('another replay into this server is under way', {
    code: 'REPLAY_REFUSED',
    hint: 'wait for it, or end its "mariadb" process; one that was interrupted ends by itself in a moment',
  });
