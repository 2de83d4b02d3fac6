import { parser } from '@prometheus-io/lezer-promql';

/** What a query selects: series of one name (or of those that a pattern fits), and the labels that it asks of them. */
export interface Selected {
  readonly name: string | RegExp;
  readonly labels: readonly string[];
}

/** Throws where it is no PromQL. */
export function selectorsIn(query: string): Selected[] {
  const found: { name: string | RegExp; labels: string[] }[] = [];
  let matcher = { label: '', isPattern: false };
  parser.parse(query).iterate({
    enter({ name, type, from, to }) {
      const text = query.slice(from, to);
      if (type.isError) throw new Error(`no PromQL at ${from}, before "${query.slice(from)}": ${query}`);
      if (name === 'VectorSelector') found.push({ name: '', labels: [] });
      const selected = found.at(-1)!;
      if (name === 'Identifier' && selected?.name === '') selected.name = text;
      if (name === 'UnquotedLabelMatcher') matcher = { label: '', isPattern: false };
      if (name === 'LabelName' && matcher.label === '' && selected) {
        matcher.label = text;
        if (text !== '__name__') selected.labels.push(text);
      }
      if (name === 'EqlRegex') matcher.isPattern = true;
      if (name === 'StringLiteral' && matcher.label === '__name__') {
        const value = text.slice(1, -1);
        selected.name = matcher.isPattern ? new RegExp(`^(?:${value})$`) : value;
      }
    },
  });
  return found;
}
