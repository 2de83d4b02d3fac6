import type { Command, Option } from 'commander';

/** What stands where an option's value or an argument stands: names from the config, files, one of some words, anything. */
export type Value =
  | { readonly kind: 'streams' | 'stores' | 'files' | 'directories' | 'any' }
  | { readonly kind: 'words'; readonly words: readonly string[] };

export interface OptionShape {
  /** `--to`, and `-c` where there is one. */
  readonly flags: readonly string[];
  readonly description: string;
  /** Null: it takes none. */
  readonly value: Value | null;
}

export interface CommandShape {
  /** `limits set`; empty for what goes with every command. */
  readonly path: string;
  readonly description: string;
  readonly options: readonly OptionShape[];
  readonly arguments: readonly Value[];
  readonly subcommands: readonly string[];
}

export interface Completing {
  /** The program itself first. */
  readonly commands: readonly CommandShape[];
  readonly configFile: string;
}

/** By the name of a placeholder. */
const KINDS: Readonly<Record<string, Exclude<Value['kind'], 'words'>>> = {
  stream: 'streams',
  store: 'stores',
  file: 'files',
  path: 'files',
  dest: 'files',
  'segment-path': 'files',
  dir: 'directories',
};

const valueAt = (placeholder: string, choices?: readonly string[]): Value =>
  choices ? { kind: 'words', words: choices } : { kind: KINDS[placeholder] ?? 'any' };

function optionShape({ short, long, flags, description, argChoices }: Option): OptionShape {
  const placeholder = /[<[]([^>\]]*)/.exec(flags)?.[1];
  return {
    flags: [short, long].filter((flag) => flag !== undefined),
    description,
    value: placeholder === undefined ? null : valueAt(placeholder, argChoices),
  };
}

/** The program, its commands and theirs, each with what it takes itself; those above it take theirs as well. */
export function commandShapes(command: Command, path = '', siblings: readonly string[] = []): CommandShape[] {
  const subcommands = command.createHelp().visibleCommands(command);
  const names = subcommands.map((one) => one.name());
  const shape: CommandShape = {
    path,
    description: command.summary() || command.description(),
    options: command.createHelp().visibleOptions(command).map(optionShape),
    arguments:
      command.name() === 'help'
        ? [{ kind: 'words', words: siblings }]
        : command.registeredArguments.map((one) => valueAt(one.name(), one.argChoices)),
    subcommands: names,
  };
  return [shape, ...subcommands.flatMap((one) => commandShapes(one, `${path} ${one.name()}`.trim(), names))];
}
