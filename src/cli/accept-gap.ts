import type { Command } from 'commander';
import { defineDecision } from './accept.ts';

export function defineAcceptGap(command: Command): void {
  defineDecision(command, {
    kind: 'accept-gap',
    result: 'gap',
    consequence:
      'If you accept, a new term begins at the oldest byte that this twin still has. What lies between is lost to the ' +
      'archive for good: a restore never crosses it, and a database can be restored up to it, or from a later backup.',
  });
}
