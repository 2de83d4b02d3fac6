import { redact } from '../core/log.ts';
import type { Standing } from '../ship/stream.ts';

const SHOWN = 1_000;
const REASON_SHOWN = 200;

/** One line for `systemctl status`. Lag comes in steps, so that the line changes when there is news. */
export function statusText(streams: readonly Standing[], refused: string | null): string {
  const parts = [
    ...(refused === null ? [] : [`the config was refused, the old one is in force: ${refused}`]),
    ...streams.map((stream) => `${stream.name}: ${streamText(stream)}`),
  ];
  return shortened(redact(parts.join('; ')), SHOWN);
}

function streamText({ role, term, ready, reason, lagSeconds, trouble }: Standing): string {
  if (role === 'master') {
    const [first] = trouble;
    const why = first === undefined ? '' : `: ${shortened(first, REASON_SHOWN)}`;
    return `master of term ${term ?? '?'}${lagText(lagSeconds)}${why}`;
  }
  if (role === 'standby' && ready) return `standby, ready${lagText(lagSeconds)}`;
  const why = reason === role ? '' : `: ${shortened(reason, REASON_SHOWN)}`;
  return `${role === 'standby' ? 'standby, not ready' : role}${why}`;
}

function lagText(seconds: number | null): string {
  if (seconds === null || seconds < 10) return '';
  const text = seconds < 60 ? `${Math.floor(seconds / 10) * 10} s` : `${Math.floor(seconds / 60)} min`;
  return `, ${text} behind`;
}

const shortened = (text: string, length: number) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);
