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

// A log collector that goes away must not take the daemon with it.
process.stderr.on('error', () => {});

const { shipmate } = await import('./cli/shipmate.ts');
const { leave, leaveUnheard } = await import('./cli/leave.ts');
process.stdout.on('error', leaveUnheard);
// Exits rather than waits: whatever a library left open must not keep a finished command alive.
await leave(await shipmate(process.argv.slice(2)));
