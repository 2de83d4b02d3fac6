/**
 * The time zone of this host by its name, `Europe/Berlin`; undefined where it has none that can be asked for by name, as
 * with a TZ that is a file or empty: then the host's own clock is what formats without a zone go by.
 */
export function hostZone(): string | undefined {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  try {
    new Intl.DateTimeFormat('en', { timeZone });
    return timeZone;
  } catch {
    return undefined;
  }
}
