import type { Command } from 'commander';
import { defineDecision } from './accept.ts';

export function defineAcceptFork(command: Command): void {
  defineDecision(command, {
    kind: 'accept-fork',
    result: 'fork',
    consequence:
      'If you accept, a new term goes on from the last point that the archive and this twin have in common. What the ' +
      'archive holds after that point stays readable, but no longer belongs to the history of this stream.',
  });
}
