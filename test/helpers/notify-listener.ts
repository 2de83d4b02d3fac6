import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** Prints a line for each datagram, newlines within it as tabs. Node has no such sockets, and Debian always has Perl. */
const PROGRAM = `
use Socket; use strict; $| = 1;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
bind($socket, sockaddr_un($ARGV[0] =~ s/^@/\\0/r)) or die "bind: $!";
print "listening\\n";
while (defined recv($socket, my $message, 65536, 0)) { $message =~ s/\\n/\\t/g; print "$message\\n"; }
`;

/** One datagram: `{ READY: '1', STATUS: '…' }`. */
export type Told = Readonly<Record<string, string>>;

/** The socket that NOTIFY_SOCKET names, with a real receiver of datagrams. */
export class NotifyListener {
  readonly #child: ChildProcess;
  /** `@` begins an abstract one. */
  readonly socket: string;

  private constructor(socket: string, child: ChildProcess) {
    this.socket = socket;
    this.#child = child;
  }

  static async on(socket: string, onTold: (told: Told) => void): Promise<NotifyListener> {
    const args = ['--pdeathsig', 'KILL', '--', 'perl', '-e', PROGRAM, socket];
    const child = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout });
    await once(lines, 'line');
    lines.on('line', (line) => {
      const told = line.split('\t').map((assignment) => {
        const at = assignment.indexOf('=');
        return [assignment.slice(0, at), assignment.slice(at + 1)];
      });
      onTold(Object.fromEntries(told));
    });
    return new NotifyListener(socket, child);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}
