import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, messageOf, ShipmateError } from '../errors.ts';
import { tellError } from './terminal.ts';

/** What a program ends with that SIGPIPE ends. */
const BROKEN_PIPE = 141;
/** A log collector that hangs must not keep a daemon that was told to stop. */
const LOG_MS = 1_000;

let isAnythingHanging = false;

/** A call on a store was given up that did not end: on a dead mount it holds a thread, and exiting would wait for that. */
export function leftHanging(): void {
  isAnythingHanging = true;
}

/** Ends this process with an exit code, whatever hangs in it, once all that was written is out: a pipe takes 64 KiB at once. */
export async function leave(code: number): Promise<never> {
  const lost = await written(process.stdout);
  if (lost) leaveUnheard(lost);
  await Promise.race([written(process.stderr), sleep(LOG_MS)]);
  end(code);
}

/** Ends this process because nobody takes what it writes on stdout. */
export function leaveUnheard(error: Error): never {
  if (codeOf(error) === 'EPIPE') end(BROKEN_PIPE); // `shipmate ls | head`: nothing to tell
  const message = `what should be printed could not be written: ${messageOf(error)}`;
  tellError(new ShipmateError(message, { code: 'OUTPUT_LOST', hint: 'what was asked for may be done all the same' }));
  end(1);
}

const written = (stream: NodeJS.WriteStream) =>
  new Promise<Error | null | undefined>((resolve) => stream.write('', resolve));

function end(code: number): never {
  if (isAnythingHanging) process.execve?.('/bin/sh', ['sh', '-c', `exit ${code}`], process.env);
  process.exit(code);
}
