import { NAMES_AWK } from './names.ts';
import type { CommandShape, Completing, OptionShape, Value } from './shapes.ts';

/** A file `_shipmate` for a directory of zsh's fpath. */
export function zshCompletion({ commands, configFile }: Completing): string {
  return `#compdef shipmate
# zsh completion of shipmate
_shipmate_list() {
  ${NAMES_AWK}
}

_shipmate_names() {
  local config=\${SHIPMATE_CONFIG:-${configFile}}
  local -i at=\${typed[(I)(-c|--config)]}
  (( at )) && config=\${(Q)typed[at + 1]/#\\~/$HOME}
  local -a names=(\${(f)"$(_shipmate_list \${@[-1]} $config)"})
  compadd "\${@[1,-2]}" -a names
}

${commands.map((command) => functionOf(command, commands)).join('\n')}
_shipmate "$@"
`;
}

const nameOf = (path: string) => `_shipmate${path === '' ? '' : `_${path.replaceAll(' ', '_')}`}`;

function functionOf(command: CommandShape, all: readonly CommandShape[]): string {
  const { path, options, arguments: values, subcommands } = command;
  const above = all.filter((one) => one.path === '' && path !== '').flatMap((one) => one.options);
  const specs = [
    ...options.map(optionSpec),
    ...above.filter(({ flags }) => !options.some((own) => own.flags.at(-1) === flags.at(-1))).map(optionSpec),
    ...values.map((value, place) => quoted(`${place + 1}: :${actionOf(value)}`)),
    ...(subcommands.length > 0 ? ["'1: :->command'", "'*:: :->rest'"] : []),
  ];
  const lines = [`${nameOf(path)}() {`, '  local context state line', '  typeset -A opt_args'];
  if (path === '') lines.push('  local -a typed=($words)'); // below, words are those from the command on
  lines.push(`  _arguments -C ${specs.join(' \\\n    ')}`);
  if (subcommands.length > 0) {
    const described = subcommands.map((name) => {
      const sub = all.find((one) => one.path === `${path} ${name}`.trim());
      return quoted(`${name}:${sub?.description ?? ''}`);
    });
    lines.push(
      '  case $state in',
      `    command) local -a known=(${described.join('\n      ')})`,
      '      _describe command known ;;',
      '    rest)',
      `      (( $+functions[${nameOf(path)}_$words[1]] )) && ${nameOf(path)}_$words[1] ;;`,
      '  esac',
    );
  }
  return [...lines, '}', ''].join('\n');
}

function optionSpec({ flags, description, value }: OptionShape): string {
  const about = `[${description.replace(/[[\]\\]/g, '\\$&').replaceAll(':', '\\:')}]`;
  const takes = value === null ? '' : `:${flags.at(-1)!.replace(/^--/, '')}:${actionOf(value)}`;
  const specs = flags.map((flag) => quoted(`${flags.length > 1 ? `(${flags.join(' ')})` : ''}${flag}${about}${takes}`));
  return specs.join(' \\\n    ');
}

function actionOf(value: Value): string {
  switch (value.kind) {
    case 'words':
      return `(${value.words.join(' ')})`;
    case 'streams':
    case 'stores':
      return `_shipmate_names ${value.kind}`;
    case 'files':
      return '_files';
    case 'directories':
      return '_files -/';
    case 'any':
      return ' ';
  }
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
