import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { COMMANDS } from '../../src/cli/commands.ts';

const run = promisify(execFile);
const CONFIG = `cluster: acme
stores:
  # where it goes
  main: { type: file, path: /mnt/backup }
  nas:
    type: file
    path: /mnt/nas
streams:
    orders:
        source: { type: mariadb, dir: /var/lib/mysql }
        store: main
    billing: {}
admin: off
`;

let dir: string;
const generate = async (script: string, ...args: string[]) =>
  (await run(process.execPath, [join('scripts', script), ...args])).stdout;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-completions-'));
  await mkdir(join(dir, 'completions'));
  await Promise.all([
    writeFile(join(dir, 'shipmate.yaml'), CONFIG),
    writeFile(join(dir, 'other.yaml'), CONFIG.replace('orders:', 'ledger:')),
    generate('completions.ts', 'bash').then((text) => writeFile(join(dir, 'completions', 'shipmate'), text)),
    generate('completions.ts', 'zsh').then((text) => writeFile(join(dir, '_shipmate'), text)),
    generate('completions.ts', 'fish').then((text) => writeFile(join(dir, 'shipmate.fish'), text)),
  ]);
}, 120_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A terminal with an interactive shell in it: types each line, has it completed, and prints what it became. */
const TYPE_IN_TERMINAL = `
zmodload zsh/zpty
out=$1; zpty shell $2; zpty -w shell $3
wait_for() { for ((i = 0; i < 1200; i++)); do
  while zpty -r -t shell seen; do :; done
  [[ -r $out && $(wc -l < $out) -ge $1 ]] && return; sleep 0.05
done; exit 1 }
wait_for 1
for ((n = 4; n <= $#; n++)); do zpty -w -n shell "\${@[$n]}"$'\\x14'; wait_for $((n - 2)); done
tail -n +2 $out`;

const SETUP = {
  bash: (out: string) =>
    `PS1=; . /usr/share/bash-completion/bash_completion; bind 'set bell-style none'; bind -x '"\\C-x1": printf "%s\\n" ` +
    `"$READLINE_LINE" >> ${out}; READLINE_LINE='; bind '"\\C-t": "\\t\\C-x1"'; echo ready >> ${out}`,
  zsh: (out: string) =>
    `PS1=; fpath=(${dir} $fpath); autoload -U compinit; compinit -D -u; show() { zle complete-word; print -r -- "$BUFFER" >>| ` +
    `${out}; BUFFER= }; zle -N show; bindkey '^T' show; print ready >>| ${out}`,
};
const INTERACTIVE = { bash: 'bash --norc --noprofile -i', zsh: 'zsh -f -i' };

async function typed(shell: 'bash' | 'zsh', lines: readonly string[]): Promise<string[]> {
  const out = join(dir, `${shell}.out`);
  const { stdout } = await run(
    'zsh',
    ['-f', '-c', TYPE_IN_TERMINAL, 'zsh', out, INTERACTIVE[shell], SETUP[shell](out), ...lines],
    { env: { ...process.env, ...environment(), TERM: 'xterm' } },
  );
  return stdout.split('\n').slice(0, -1);
}

const environment = () => ({ HOME: dir, SHIPMATE_CONFIG: join(dir, 'shipmate.yaml'), BASH_COMPLETION_USER_DIR: dir });

/** What is typed, and what the line becomes. */
const COMPLETED: readonly [string, string][] = [
  ['shipmate hando', 'shipmate handover '],
  ['shipmate config e', 'shipmate config example '],
  ['shipmate limits set --que', 'shipmate limits set --queue '],
  ['shipmate ls or', 'shipmate ls orders '],
  ['shipmate restore --until latest bi', 'shipmate restore --until latest billing '],
  ['shipmate restore orders --store n', 'shipmate restore orders --store nas '],
  ['shipmate repair orders --from ma', 'shipmate repair orders --from main '],
  ['shipmate restore orders --to /usr/loc', 'shipmate restore orders --to /usr/local/'],
  ['shipmate help pus', 'shipmate help push '],
];

describe.each(['bash', 'zsh'] as const)('%s', (shell) => {
  test('completes commands, options, streams, stores and directories, in a terminal', async () => {
    const other = `shipmate -c ${join(dir, 'other.yaml')} ls led`;
    const lines = await typed(shell, [...COMPLETED.map(([line]) => line), other]);
    expect(lines).toEqual([...COMPLETED.map(([, line]) => line), other.replace(/led$/, 'ledger ')]);
  }, 120_000);
});

describe('fish', () => {
  const offered = async (line: string) => {
    const script = `source ${join(dir, 'shipmate.fish')}; complete -C '${line}'`;
    const { stdout } = await run('fish', ['--no-config', '-c', script], { env: { ...process.env, ...environment() } });
    return stdout.trimEnd().split('\n');
  };

  test('completes the same, with what each is for', async () => {
    for (const [line, completed] of COMPLETED) {
      const [word] = (await offered(line)).map((one) => one.split('\t')[0]);
      expect(word).toBe(completed.trim().split(' ').at(-1));
    }
    expect(await offered('shipmate ha')).toEqual([
      `handover\t${COMMANDS.find(({ name }) => name === 'handover')!.summary}`,
    ]);
    expect(await offered(`shipmate -c ${join(dir, 'other.yaml')} ls led`)).toEqual(['ledger']);
  }, 120_000);
});

describe('the man page', () => {
  test('has every command and option, and no man program finds fault with it', async () => {
    const file = join(dir, 'shipmate.1');
    await writeFile(file, await generate('man-page.ts'));
    expect(await run('mandoc', ['-T', 'lint', file])).toEqual({ stdout: '', stderr: '' });
    expect((await run('groff', ['-man', '-ww', '-z', file])).stderr).toBe('');
    const { stdout: text } = await run('man', ['-l', file], { env: { ...process.env, MANWIDTH: '200' } });
    for (const { name } of COMMANDS) expect(text).toContain(`shipmate ${name}`);
    for (const option of ['--init', '--keep-monthly n', '--class name=rate', '-c, --config file']) {
      expect(text).toContain(option);
    }
    expect(text).not.toContain('--read-ahead'); // which "fetch" keeps to itself
    for (const section of ['EXIT STATUS', 'ENVIRONMENT', 'FILES'])
      expect(text).toMatch(new RegExp(`^${section}$`, 'm'));
  });
});
