import { statSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * Keeping compiled code saves a third of what a command costs to start. It lies in the user's own cache directory, if there is
 * one: whoever could write to it could run code as this user.
 */
function ownCacheDirectory(): string | null {
  try {
    const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
    const found = statSync(base);
    return found.isDirectory() && found.uid === process.getuid?.() ? join(base, 'shipmate') : null;
  } catch {
    return null; // it is not there, another user's $HOME was kept, or this user has no name here, as in a container
  }
}

const cacheDirectory = ownCacheDirectory();
if (cacheDirectory !== null) enableCompileCache(cacheDirectory);

// `shipmate ls | head`: whoever read has left. Say nothing, and end as other programs do (128 + SIGPIPE).
process.stdout.on('error', (error) => {
  if ('code' in error && error.code === 'EPIPE') process.exit(141);
  throw error;
});
// A log collector that goes away must not take the daemon with it.
process.stderr.on('error', () => {});

const { shipmate } = await import('./cli/shipmate.ts');
const { leave } = await import('./cli/leave.ts');
// Exits rather than waits: whatever a library left open must not keep a finished command alive.
leave(await shipmate(process.argv.slice(2)));
