import type { Argument, Command, Option } from 'commander';
import { buildProgram } from '../src/cli/program.ts';
import { wrap } from '../src/cli/wrap.ts';
import { version } from '../src/version.ts';

// The man page shipmate.1, as roff, on stdout: `node scripts/man-page.ts > shipmate.1`. Commands and options are those that
// --help shows; what belongs to none of them is here. $SOURCE_DATE_EPOCH sets its date.

const EXIT_CODES: readonly Entry[] = [
  ['0', 'Done.'],
  ['1', 'Failed; “check” found an error.'],
  ['2', 'Wrong usage or config: nothing was done.'],
  ['3', 'The archive is not whole: a gap, or objects that are missing or damaged.'],
];
const FETCH_EXITS =
  '“fetch” alone has its own, for PostgreSQL: 0 done, 1 the file is not in the archive, 126 anything else. An error is one ' +
  'line on stderr, “error: …”, and another, “hint: …”, that says what to do.';

const FILES: readonly Entry[] = [
  ['/etc/shipmate/shipmate.yaml', 'The config. “shipmate config example” prints one in which every key is explained.'],
  [
    '/var/lib/shipmate',
    'The state directory (stateDir), of mode 0700: archive ids, secrets, and without etcd the cursor. No log is kept in it.',
  ],
];

const ENVIRONMENT: readonly Entry[] = [
  ['SHIPMATE_CONFIG', 'The config file, where no --config names one.'],
  [
    'SHIPMATE_LOG_LEVEL',
    'debug, info (the default), warn or error: what the daemon logs. With debug an error also says where it comes from.',
  ],
  ['SHIPMATE_LOG_FORMAT', 'json, text or journal: how. By default what suits whoever reads it.'],
  [
    'NAME, NAME_FILE',
    'Any variable that the config names, as $NAME in braces, or a file whose first line is its value: passwords belong there.',
  ],
  ['NO_COLOR, FORCE_COLOR', 'Colour never, or also where the output is no terminal.'],
  ['XDG_CACHE_HOME', 'Where compiled code and what “fetch” reads ahead are kept; by default ~/.cache.'],
  ['GOOGLE_APPLICATION_CREDENTIALS', 'Credentials of Google Cloud Storage, where the store has no keyFile.'],
  [
    'AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY',
    'Region and credentials of S3, as the AWS SDK takes them.',
  ],
  ['AZURE_CLIENT_ID, AZURE_TENANT_ID', 'Credentials of Azure Blob Storage, as its SDK takes them.'],
  ['NODE_EXTRA_CA_CERTS', 'A file of further authorities that stores’ certificates may be signed by.'],
];

type Entry = readonly [term: string, text: string];

/** Text as roff shows it: quotes and dashes as such. */
const plain = (text: string) =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('"', '\\(dq')
    .replaceAll('“', '\\(lq')
    .replaceAll('”', '\\(rq')
    .replaceAll('’', '\\(cq')
    .replaceAll('…', '...');

const bold = (text: string) => `\\fB${plain(text)}\\fR`;
const italic = (text: string) => `\\fI${plain(text)}\\fR`;
const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.:]$/.test(text) ? '' : '.');

/** Prose in lines of a source file's width, none of which looks like a request. */
const filled = (text: string) => wrap(plain(text), { width: 78 }).map((line) => line.replace(/^\./, '\\&.'));
const tagged = ([term, text]: Entry) => ['.TP', term, ...filled(text)];
const list = (entries: readonly Entry[]) => entries.flatMap(([term, text]) => tagged([bold(term), text]));

/** `--to <dir>` as `--to` in bold and what it takes in italics. */
function flagsText(flags: string): string {
  return flags
    .split(/(<[^>]*>|\[[^\]]*\])/)
    .map((part) => (/^[<[]/.test(part) ? italic(part.slice(1, -1)) : bold(part)))
    .join('');
}

function optionEntry({ flags, description, defaultValue, argChoices, envVar, mandatory }: Option): Entry {
  const more = [
    ...(mandatory ? ['must be given'] : []),
    ...(argChoices ? [`one of ${argChoices.join(', ')}`] : []),
    ...(defaultValue === undefined ? [] : [`by default ${String(defaultValue)}`]),
    ...(envVar === undefined ? [] : [`$${envVar} names another`]),
  ];
  return [flagsText(flags), sentence([description, ...more].join('; '))];
}

const argumentText = (argument: Argument) =>
  argument.required ? italic(argument.name()) : `[${italic(argument.name())}]`;

/** What --help shows below the options: paragraphs, and examples, which are indented there. */
function helpBelow(command: Command): string {
  let shown = '';
  command.configureOutput({
    writeOut: (text) => {
      shown += text;
    },
  });
  command.outputHelp();
  return shown.slice(command.helpInformation().length);
}

function paragraphs(text: string): string[] {
  const blocks = text
    .split('\n\n')
    .map((block) => block.trim())
    .filter((block) => block !== '');
  return blocks.flatMap((block) => {
    const lines = block.split('\n');
    const prose = lines.filter((line) => !line.startsWith('  '));
    const typed = lines.filter((line) => line.startsWith('  ')).map((line) => plain(line.slice(2)));
    return ['.PP', ...filled(prose.join(' ')), ...(typed.length > 0 ? ['.RS 4', '.EX', ...typed, '.EE', '.RE'] : [])];
  });
}

function commandSection(command: Command, path: string): string[] {
  const visible = command
    .createHelp()
    .visibleOptions(command)
    .filter(({ long }) => long !== '--help');
  const args = command.registeredArguments;
  const synopsis = [
    bold(path),
    ...(visible.length > 0 ? [`[${italic('options')}]`] : []),
    ...args.map(argumentText),
    ...(command.commands.length > 0 ? [`[${italic('command')}]`] : []),
  ].join(' ');
  return [
    `.SS ${plain(path)}`,
    synopsis,
    '.PP',
    ...filled(sentence(command.description())),
    ...args
      .filter(({ description }) => description)
      .flatMap((one) => tagged([italic(one.name()), sentence(one.description)])),
    ...visible.flatMap((option) => tagged(optionEntry(option))),
    ...paragraphs(helpBelow(command)),
    ...command.commands.flatMap((sub) => commandSection(sub, `${path} ${sub.name()}`)),
  ];
}

function manPage(program: Command): string {
  const seconds = process.env.SOURCE_DATE_EPOCH;
  const date = (seconds === undefined ? new Date() : new Date(Number(seconds) * 1000)).toISOString().slice(0, 10);
  const commands = program.commands.filter((command) => command.name() !== 'help');
  return [
    `.TH SHIPMATE 1 ${date} "Shipmate ${version}" "Shipmate"`,
    '.SH NAME',
    "shipmate \\- ships a database's log to object storage while it is written",
    '.SH SYNOPSIS',
    `${bold('shipmate')} [${italic('options')}] ${italic('command')} [${italic('arguments')}]`,
    '.SH DESCRIPTION',
    ...filled(program.description()),
    ...paragraphs(helpBelow(program)),
    '.SH OPTIONS',
    'These go with every command.',
    ...program.options.flatMap((option) => tagged(optionEntry(option))),
    ...tagged([bold('--help'), 'Print the help of a command.']),
    '.SH COMMANDS',
    ...commands.flatMap((command) => commandSection(command, `shipmate ${command.name()}`)),
    '.SH EXIT STATUS',
    ...list(EXIT_CODES),
    '.PP',
    ...filled(FETCH_EXITS),
    '.SH ENVIRONMENT',
    ...list(ENVIRONMENT),
    '.SH FILES',
    ...list(FILES),
    '',
  ].join('\n');
}

process.stdout.write(manPage(await buildProgram(() => true)));
