import { NAMES_AWK } from './names.ts';
import type { CommandShape, Completing, OptionShape, Value } from './shapes.ts';

/** A file shipmate.fish for /usr/share/fish/vendor_completions.d. */
export function fishCompletion({ commands, configFile }: Completing): string {
  return `# fish completion of shipmate
function __shipmate_names --argument-names section
    set -l config ${configFile}
    set -q SHIPMATE_CONFIG; and set config $SHIPMATE_CONFIG
    set -l words (commandline -opc)
    for at in (seq 2 (count $words))
        switch $words[$at]
            case -c --config
                set -q words[(math $at + 1)]; and set config (string replace -r '^~' $HOME $words[(math $at + 1)])
            case '--config=*'
                set config (string replace -- --config= '' $words[$at])
        end
    end
    ${NAMES_AWK.replace('"$1"', '$section').replace('"$2"', '$config')}
end

# Succeeds if the words before the cursor are the command $argv[1], and as many arguments as $argv[2], if it is given.
function __shipmate_at --argument-names path place
    set -l words (commandline -opc)
    set -l found ''
    set -l arguments 0
    set -l skip 0
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            contains -- $word ${takingOf(commands).join(' ')}; and set skip 1
        else if contains -- (string trim "$found $word") ${commands
          .filter(({ path }) => path !== '')
          .map(({ path }) => `'${path}'`)
          .join(' ')}
            set found (string trim "$found $word")
            set arguments 0
        else
            set arguments (math $arguments + 1)
        end
    end
    test "$found" = "$path"; or return 1
    test -z "$place"; or test "$place" = $arguments
end

complete -c shipmate -f
${commands.flatMap((command) => linesOf(command, commands)).join('\n')}
`;
}

/** No flag takes a value with one command and none with another. */
const takingOf = (commands: readonly CommandShape[]) => [
  ...new Set(commands.flatMap(({ options }) => options.filter(({ value }) => value).flatMap(({ flags }) => flags))),
];

function linesOf(command: CommandShape, all: readonly CommandShape[]): string[] {
  const { path, options, arguments: values, subcommands } = command;
  const when = `__shipmate_at ${quoted(path)}`;
  return [
    ...subcommands.map((name) => {
      const about = all.find((one) => one.path === `${path} ${name}`.trim())?.description ?? '';
      return `complete -c shipmate -n ${quoted(`${when} 0`)} -a ${name} -d ${quoted(about)}`;
    }),
    ...values.flatMap((value, place) => {
      const takes = takesOf(value);
      return takes === '' ? [] : [`complete -c shipmate -n ${quoted(`${when} ${place}`)} ${takes}`];
    }),
    // What the program takes goes with every command.
    ...options.map((option) => optionLine(option, path === '' ? '' : ` -n ${quoted(when)}`)),
  ];
}

function optionLine({ flags, description, value }: OptionShape, when: string): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`)).join(' ');
  const takes = value === null ? '' : ` ${value.kind === 'files' ? '-r' : '-x'} ${takesOf(value)}`.trimEnd();
  return `complete -c shipmate${when} ${names} -d ${quoted(description)}${takes}`;
}

function takesOf(value: Value): string {
  switch (value.kind) {
    case 'words':
      return `-a ${quoted(value.words.join(' '))}`;
    case 'streams':
    case 'stores':
      return `-a '(__shipmate_names ${value.kind})'`;
    case 'files':
      return '-F';
    case 'directories':
      return "-a '(__fish_complete_directories)'";
    case 'any':
      return '';
  }
}

const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
