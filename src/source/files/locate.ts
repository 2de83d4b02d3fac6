import { type Position, samePlace } from '../../core/position.ts';
import type { Head, Located } from '../source.ts';
import type { Directory } from './directory.ts';
import { COPYTRUNCATE } from './errors.ts';
import type { LogFile } from './file.ts';
import { idText, sequenceName, sequenceNumber } from './names.ts';
import { startOf } from './place.ts';

type Answer = Omit<Located, 'evidence'>;

export interface Here {
  readonly directory: Directory;
  readonly origin: string;
}

/**
 * How the files here go on from an archive's head (protocol rule 14), by their bytes alone. What was shipped is never
 * taken back: where the files no longer hold it, that is a gap, which an operator accepts.
 */
export async function locate(here: Here, head: Head | null): Promise<Located> {
  const { files } = here.directory;
  const answer = await answerFor(here, head);
  return {
    ...answer,
    evidence: { files: files.length, oldest: files[0]?.name ?? null, newest: files.at(-1)?.name ?? null },
  };
}

async function answerFor(here: Here, head: Head | null): Promise<Answer> {
  const { directory, origin } = here;
  const position = head?.position ?? null;
  if (!head || !position) return start(here, 'nothing was shipped yet');
  if (position.origin !== origin) return ofAnotherHost(position, origin);
  const file = await find(directory, head, position);
  if (file === null && head.witness === null)
    return start(here, 'nothing was shipped yet, and the oldest file is another');
  if (directory.oldest === undefined && !(file === null && sameName(directory, position))) {
    return {
      result: 'behind',
      at: null,
      allowed: false,
      reason: `there are no files in ${directory.dir}, but the archive has some`,
    };
  }
  if (directory.shrunk) {
    const what = `${directory.shrunk.path} was shortened or overwritten in place, so that bytes may be lost; ${COPYTRUNCATE}`;
    return gap(here, position, file ?? copyOf(directory) ?? directory.shrunk, what);
  }
  if (file === null) return missing(here, position);
  directory.bind(file, position);
  const next = position.offset === file.size ? directory.next(file) : undefined;
  if (next) {
    const isGone = !next.listed && !next.isOpen;
    const isAgain = directory.layout.live === null && next.name === file.name;
    if (isGone || !directory.goesOn(file, next))
      return gap(here, position, after(directory, file), `what followed ${file.name} is gone`);
    if (isAgain) return gap(here, position, next, `${file.name} was replaced by a new file of that name`);
  }
  return {
    result: 'resume',
    at: position,
    allowed: true,
    reason: `${file.name} holds the bytes that were shipped last`,
  };
}

async function start({ directory, origin }: Here, reason: string): Promise<Answer> {
  const { oldest } = directory;
  return { result: 'start', at: oldest ? await startOf(directory, origin, oldest) : null, allowed: true, reason };
}

function ofAnotherHost({ origin: shipped }: Position, origin: string): Answer {
  const reason =
    `the archive holds ${shipped}, and these are ${origin}: without "shared: true" each host's files are others, ` +
    'and only the host that shipped them goes on';
  return { result: 'behind', at: null, allowed: false, reason };
}

/** The head's file, with the bytes that were shipped last. */
async function find(directory: Directory, head: Head, position: Position): Promise<LogFile | null> {
  const found = await directory.candidates(position);
  const { witness } = head;
  if (position.offset > 0) {
    if (witness === null || !samePlace(witness.to, position)) return null;
    for (const file of found) if (witness.matches(await file.digest(witness.from.offset, witness.length))) return file;
    return null;
  }
  // Nothing was shipped of it: where several begin alike, it is the one after the file that was shipped last.
  if (found.length < 2 || witness === null) return found[0] ?? null;
  for (const file of await directory.candidates(witness.to)) {
    if (!witness.matches(await file.digest(witness.from.offset, witness.length))) continue;
    const next = directory.next(file);
    return next && found.includes(next) ? next : null;
  }
  return null;
}

/** Where no file holds what was shipped last. */
async function missing(here: Here, position: Position): Promise<Answer> {
  const { directory } = here;
  const { layout, files } = directory;
  if (layout.live !== null) {
    const what = `no file here holds what was shipped last (${position.id}): it was removed or shortened; ${COPYTRUNCATE}`;
    return gap(here, position, directory.oldest!, what);
  }
  const same = sameName(directory, position);
  if (same) {
    const what =
      same.size < position.offset
        ? `${same.name} has ${same.size} bytes, ${position.offset} were shipped of it: it was shortened in place; ${COPYTRUNCATE}`
        : `${same.name} no longer holds what was shipped of it: it was replaced or overwritten (if rotation renames it: "live:")`;
    return gap(here, position, same, what);
  }
  const isNewer = ({ name, size }: LogFile) => size > 0 && layout.compare(name, position.segment) > 0;
  const next = files.find((file) => !layout.isPart(file.name)) ?? files.find(isNewer);
  if (next)
    return gap(here, position, next, `${position.segment} is gone, and with it what may have followed ${position.id}`);
  const reason = `${position.segment} is gone, and no newer file is here yet`;
  return { result: 'behind', at: null, allowed: false, reason };
}

/** What has the position's name now, where names stay as they are; perhaps nothing is left of what was shipped of it. */
const sameName = ({ files, layout }: Directory, { segment }: Position) =>
  layout.live === null ? files.find(({ name, listed }) => listed && name === segment) : undefined;

/** What appeared before a file that was being shipped, as copytruncate's copies do: it may hold what was not shipped. */
const copyOf = ({ files }: Directory) => files.find(({ listed, size, endedAt }) => listed && size > 0 && endedAt === 0);

/** The first file after one whose bytes are still here; for Redis the base, which holds all that is missing. */
function after(directory: Directory, file: LogFile): LogFile {
  const { files, layout } = directory;
  const later = files.slice(files.indexOf(file) + 1).find(({ size, listed, isOpen }) => size > 0 && (listed || isOpen));
  return files.find(({ name, listed }) => listed && !layout.isPart(name)) ?? later ?? file;
}

/** Goes on, if an operator accepts it, with a whole file: of what the archive has of it already, nothing is taken back. */
async function gap({ directory, origin }: Here, { segment }: Position, file: LogFile, reason: string): Promise<Answer> {
  const { live } = directory.layout;
  const name = live === null ? file.name : sequenceName(live, sequenceNumber(segment) + 1);
  // Whatever these were shipped as, they are to be shipped anew.
  for (const each of directory.from(file)) each.bound = null;
  const incarnation = await file.incarnation();
  directory.bind(file, { segment: name, incarnation });
  const at = { origin, incarnation, segment: name, offset: 0, id: idText(name, 0) };
  return { result: 'gap', at, allowed: false, reason };
}
