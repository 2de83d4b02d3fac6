import { NAMES_AWK } from './names.ts';
import type { CommandShape, Completing, OptionShape, Value } from './shapes.ts';

/** A file for /usr/share/bash-completion/completions/shipmate; needs nothing but bash. */
export function bashCompletion({ commands, configFile }: Completing): string {
  const [program, ...others] = commands;
  const taking = commands.flatMap(({ path, options }) =>
    options.filter(({ value }) => value !== null).map((option) => ({ path, option })),
  );
  return `# bash completion of shipmate
_shipmate_names() {
  ${NAMES_AWK}
}

_shipmate_fill() {
  case $1 in
    streams | stores) COMPREPLY=($(compgen -W "$(_shipmate_names "$1" "$config")" -- "$current")) ;;
    files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    directories) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    any) ;;
    *) COMPREPLY=($(compgen -W "$1" -- "$current")) ;;
  esac
}

# What the option $2 of the command $1 takes; fails if it takes nothing.
_shipmate_value() {
  case "$1 $2" in
${taking.map(({ path, option }) => `    ${patternsOf(path, option)}) value='${wordsOf(option.value!)}' ;;`).join('\n')}
    *) return 1 ;;
  esac
}

_shipmate() {
  local current=\${COMP_WORDS[COMP_CWORD]} config=\${SHIPMATE_CONFIG:-${configFile}} path='' value='' asked='' place=0 at word
  COMPREPLY=()
  # "--store=ma" comes as three words.
  [[ $current == = ]] && current=''
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    [[ $word == = ]] && continue
    if [[ -n $asked ]]; then
      [[ $asked == -c || $asked == --config ]] && config=\${word/#\\~/$HOME}
      asked=''
    elif [[ $word == -* ]]; then
      _shipmate_value "$path" "$word" && asked=$word
    else
      case "\${path:+$path }$word" in
        ${others.map(({ path }) => `'${path}'`).join(' | ')}) path="\${path:+$path }$word"; place=0 ;;
        *) place=$((place + 1)) ;;
      esac
    fi
  done
  if [[ -n $asked ]]; then
    _shipmate_value "$path" "$asked"
    _shipmate_fill "$value"
    return
  fi
  if [[ $current == -* ]]; then
    case $path in
${commands.map((command) => `      '${command.path}') _shipmate_fill '${flagsOf(command, commands)}' ;;`).join('\n')}
    esac
    return
  fi
  case "$path $place" in
    ' 0') _shipmate_fill '${program!.subcommands.join(' ')}' ;;
${others.flatMap(placesOf).join('\n')}
  esac
}
complete -F _shipmate shipmate
`;
}

const wordsOf = (value: Value) => (value.kind === 'words' ? value.words.join(' ') : value.kind);

/** What goes with every command may follow any. */
const patternsOf = (path: string, { flags }: OptionShape) =>
  flags.map((flag) => (path === '' ? `*' ${flag}'` : `'${path} ${flag}'`)).join(' | ');

function flagsOf({ path, options }: CommandShape, all: readonly CommandShape[]): string {
  const above = all.filter((one) => path.startsWith(`${one.path} `) || one.path === '').flatMap((one) => one.options);
  return [...new Set([...options, ...above].flatMap(({ flags }) => flags))].join(' ');
}

const placesOf = ({ path, arguments: values, subcommands }: CommandShape) => [
  ...(subcommands.length > 0 ? [`    '${path} 0') _shipmate_fill '${subcommands.join(' ')}' ;;`] : []),
  ...values.map((value, place) => `    '${path} ${place}') _shipmate_fill '${wordsOf(value)}' ;;`),
];
