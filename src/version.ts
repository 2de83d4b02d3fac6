import { readFileSync } from 'node:fs';

const { version: stated }: { version: string } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
);

/** This Shipmate's version, as package.json states it. */
export const version = stated;
