import { createInterface, type Interface } from 'node:readline/promises';
import { ShipmateError, UsageError } from '../errors.ts';

export interface Question {
  readonly text: string;
  /** The option that answers it as well. */
  readonly flag: string;
  /** What that option was given. */
  readonly given?: string | undefined;
  /** What an empty answer means; null: there must be one. */
  readonly preset: string | null;
  /** Throws UsageError for an answer that can't be. */
  readonly check?: (answer: string) => unknown;
}

/** Asks on the terminal what no option said; with `yes` nobody, and what has no default is refused. */
export class Questions {
  readonly #yes: boolean;
  #terminal: Interface | null = null;
  /** Resolves when whoever is asked leaves: Ctrl-C, Ctrl-D. */
  readonly #left = Promise.withResolvers<null>();

  constructor({ yes }: { readonly yes: boolean }) {
    this.#yes = yes;
  }

  async ask(question: Question): Promise<string> {
    const { text, flag, given, preset, check = () => {} } = question;
    if (given !== undefined) {
      check(given);
      return given;
    }
    if (this.#yes && preset !== null) return preset;
    if (this.#yes) throw new UsageError(`${text}: nothing here tells`, `give ${flag}`);
    for (;;) {
      const answer = (await this.#read(`${text}${preset === null ? '' : ` [${preset}]`}: `)) || preset;
      try {
        if (answer === null) throw new UsageError('there is no default for it');
        check(answer);
        return answer;
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        process.stderr.write(`${[error.message, error.hint].filter(Boolean).join(': ')}\n`);
      }
    }
  }

  close(): void {
    this.#terminal?.close();
  }

  async #read(prompt: string): Promise<string> {
    this.#terminal ??= this.#open();
    const answer = await Promise.race([this.#terminal.question(prompt).catch(() => null), this.#left.promise]);
    if (answer !== null) return answer.trim();
    process.stderr.write('\n');
    throw new ShipmateError('setup was left', { code: 'SETUP_LEFT', hint: 'nothing was written' });
  }
  #open(): Interface {
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    return terminal.once('close', () => this.#left.resolve(null));
  }
}
