export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
/** Facts beside the message, such as `{term: 3, error}`; an Error is written as its message and code. */
export type LogFields = Readonly<Record<string, unknown>>;

/** What every part logs through. Messages are one line of plain words; what varies goes into the fields. */
export type Log = Readonly<Record<LogLevel, (message: string, fields?: LogFields) => void>>;

// The user part ends at the last @ before the path, so that an unescaped @ or : in a password leaks nothing.
const URL_PASSWORD = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s:/?#@]*):[^\s/?#"']*@/gi;
const URL_PARAMETER = /([?&](?:password|token|secret|sig|signature)=)[^\s&#"']*/gi;

/** Takes passwords out of the URLs in a text: `mysql://me:pw@host/` becomes `mysql://me:***@host/`. */
export function redact(text: string): string {
  return text.replace(URL_PASSWORD, '$1:***@').replace(URL_PARAMETER, '$1***');
}
