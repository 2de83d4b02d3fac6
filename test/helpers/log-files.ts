import { appendFileSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byNumber } from '../../src/source/files/names.ts';
import { type FilesSourceOptions, openFilesSource } from '../../src/source/files.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

/** A directory whose files a writer appends to, line by line, and begins anew. */
export class LogFiles {
  readonly dir = mkdtempSync(join(tmpdir(), 'shipmate-files-'));
  /** What each file holds that was ever begun, in order: what is to be shipped. */
  readonly written: string[] = [];
  readonly #live: string | undefined;
  #lines = 0;
  #begun = 0;

  /** `live`: that file is written, and renamed to `….1` by a rotation; without it each file has a name of its own. */
  constructor({ live }: { live?: string } = {}) {
    this.#live = live;
  }

  open(options: Partial<FilesSourceOptions> = {}) {
    return openFilesSource({
      ...{ stream: 'audit', dir: this.dir, layout: 'plain', match: '*', order: 'number', live: this.#live },
      ...{ cut: 'line', settleMs: 30, shared: true, node: 'db-1', busyPollMs: 5, log, ...options },
    });
  }

  get newest(): string {
    return this.#live ?? `audit-${this.#begun}.log`;
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  /** Ends the newest file and begins the next with a line. */
  rotate(): void {
    if (this.#live !== undefined && this.#begun > 0) this.#renameAll(this.#live);
    this.#begun++;
    this.written.push('');
    this.append();
  }

  /** One line, of at least so many bytes. */
  append({ bytes = 0 }: { bytes?: number } = {}): void {
    this.write(`${`line ${this.#lines++} `.padEnd(bytes, 'x')}\n`);
  }

  /** Any bytes to the newest file. */
  write(text: string): void {
    appendFileSync(this.path(this.newest), text);
    this.written[this.written.length - 1] += text;
  }

  /** Removes all files but the newest so many. */
  purge(keep = 1): void {
    for (const name of this.names().slice(0, -keep)) rmSync(this.path(name));
  }

  /** In the directory now, oldest first. */
  names(): string[] {
    const names = readdirSync(this.dir).sort(byNumber);
    if (this.#live === undefined) return names;
    return [...names.filter((name) => name !== this.#live).reverse(), this.#live];
  }

  contents(): Map<string, Buffer> {
    const names = this.names().filter((name) => statSync(this.path(name)).size > 0);
    return new Map(names.map((name) => [name, readFileSync(this.path(name))]));
  }

  remove(): void {
    rmSync(this.dir, { recursive: true });
  }

  #renameAll(live: string): void {
    const aged = this.names().slice(0, -1);
    for (const name of aged) renameSync(this.path(name), this.path(`${live}.${Number(name.split('.').at(-1)) + 1}`));
    renameSync(this.path(live), this.path(`${live}.1`));
  }
}
