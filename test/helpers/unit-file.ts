import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const UNITS = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'deploy', 'systemd');

/** A `[Service]` section, as systemd reads it: of a unit file and its drop-ins, later settings before earlier ones. */
export class UnitFile {
  readonly #settings = new Map<string, string[]>();

  /** `name` in deploy/systemd; `dropIns` as text. */
  constructor(name: string, dropIns: readonly string[] = []) {
    for (const text of [readFileSync(join(UNITS, name), 'utf8'), ...dropIns]) this.#read(text);
  }

  /** Throws where it is not set: what is tested must be in the file. */
  get(name: string): string {
    const value = this.all(name).at(-1);
    if (value === undefined) throw new Error(`the unit has no ${name}=`);
    return value;
  }

  all(name: string): readonly string[] {
    return this.#settings.get(name) ?? [];
  }

  /** Whether it is set to nothing at all. */
  isEmpty(name: string): boolean {
    return this.#settings.get(name)?.length === 0;
  }

  /** `30s`, `1min 30s`, `250ms` or plain seconds, in milliseconds. */
  milliseconds(name: string): number {
    const unit: Record<string, number> = { '': 1_000, ms: 1, s: 1_000, min: 60_000 };
    return this.get(name)
      .split(/\s+/)
      .reduce((sum, part) => {
        const [, count, of = ''] = /^(\d+)(ms|s|min)?$/.exec(part) ?? [];
        if (count === undefined) throw new Error(`${name}=${this.get(name)} is no time`);
        return sum + Number(count) * unit[of]!;
      }, 0);
  }

  #read(text: string): void {
    let section = '';
    for (const line of text.split('\n').map((each) => each.trim())) {
      if (/^(#|;|$)/.test(line)) continue;
      section = /^\[(.*)\]$/.exec(line)?.[1] ?? section;
      const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
      if (section !== 'Service' || name === undefined || value === undefined) continue;
      this.#settings.set(name, value === '' ? [] : [...this.all(name), value]); // an empty one takes back what was there
    }
  }
}
