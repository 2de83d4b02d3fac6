import { lagText } from '../core/format.ts';
import type { StatusReport, StreamStatus } from '../core/status.ts';

const REFRESH_SECONDS = 2;

const STYLE = `
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
  h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; } p { margin: .2rem 0; }
  table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
  th { font-weight: 600; border-bottom: 1px solid #bbb; } code { overflow-wrap: anywhere; }
  .bad { color: #b00020; font-weight: 600; }
  @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } .bad { color: #ff7a7a; } }
`;

/** The status report as a page that needs no script and nothing from elsewhere. */
export function statusPage(
  { cluster, streams }: StatusReport,
  { ok, reasons }: { readonly ok: boolean; readonly reasons: readonly string[] },
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="${REFRESH_SECONDS}">
<title>Shipmate: ${escaped(cluster)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>Shipmate: cluster ${escaped(cluster)}</h1>
<p>${ok ? 'This daemon is ready.' : `<span class="bad">This daemon is not ready:</span> ${escaped(reasons.join('; '))}`}</p>
${streams.map(streamSection).join('\n')}
<p><a href="/api/v1/status">status as JSON</a> · <a href="/metrics">metrics</a></p>
</body>
</html>
`;
}

function streamSection(stream: StreamStatus): string {
  const { name, master, term, slot, cursor } = stream;
  const lead = master === null ? '<span class="bad">no master</span>' : `master ${escaped(master)}`;
  const place = cursor
    ? `durable up to <code>${escaped(cursor.id || '(no ID yet)')}</code>, ${escaped(cursor.segment)}:${cursor.offset}`
    : 'nothing shipped yet';
  return `<section>
<h2>${escaped(name)}</h2>
<p>${lead} · term ${term}, slot ${slot} · lag ${lagText(stream)}</p>
<p>${place}</p>
<table>
<tr><th>twin</th><th>role</th><th>ready</th><th>lag</th><th>why</th></tr>
${stream.twins.map(twinRow).join('\n')}
</table>
</section>`;
}

function twinRow(twin: StreamStatus['twins'][number]): string {
  const ready = twin.ready ? 'yes' : '<span class="bad">no</span>';
  const cells = [escaped(twin.node), escaped(twin.role), ready, lagText(twin), escaped(twin.reason)];
  return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escaped = (text: string) => text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
