import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export interface CodeBlock {
  /** What stands behind the fence: `sh`, `yaml`; may be empty. */
  readonly language: string;
  readonly text: string;
  /** The heading that it stands below. */
  readonly heading: string;
}

/** A page of the documentation, as GitHub reads it. */
export class Page {
  /** Below the project's root. */
  readonly path: string;
  readonly blocks: CodeBlock[] = [];
  /** Names by which a link finds a heading. */
  readonly anchors = new Set<string>();
  /** `code` in prose. */
  readonly inline: string[] = [];
  /** What links and pictures lead to. */
  readonly links: string[] = [];

  private constructor(path: string, text: string) {
    this.path = path;
    const prose: string[] = [];
    let block: { fence: string; language: string; lines: string[] } | null = null;
    let heading = '';
    for (const line of text.split('\n')) {
      const fence = /^\s*(?:(?:[-*]|\d+\.)\s+)?(```+)(.*)$/.exec(line);
      if (block !== null) {
        if (fence?.[1] !== block.fence) block.lines.push(line);
        else {
          this.blocks.push({ language: block.language, text: block.lines.join('\n'), heading });
          block = null;
        }
      } else if (fence) {
        block = { fence: fence[1]!, language: fence[2]!.trim(), lines: [] };
      } else {
        heading = this.#headingIn(line) ?? heading;
        prose.push(line);
      }
    }
    if (block !== null) throw new Error(`${path}: a block of code has no end`);
    this.#readProse(prose.join('\n'));
  }

  static async read(path: string): Promise<Page> {
    return new Page(path, await readFile(join(ROOT, path), 'utf8'));
  }

  #headingIn(line: string): string | null {
    const text = /^#{1,6} (.*)$/.exec(line)?.[1];
    if (text === undefined) return null;
    const slug = text
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
      .replaceAll(' ', '-');
    let name = slug;
    for (let times = 1; this.anchors.has(name); times++) name = `${slug}-${times}`;
    this.anchors.add(name);
    return text;
  }

  #readProse(prose: string): void {
    const withoutCode = prose.replace(/(`+)([\s\S]*?)\1/g, (_, __, code: string) => {
      this.inline.push(code.replace(/\s+/g, ' ').trim());
      return '`';
    });
    for (const [, to] of withoutCode.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)/g)) this.links.push(to!);
  }
}

/** Every page of the project's own, below its root. */
export async function readPages(): Promise<Page[]> {
  const below = await Promise.all(
    ['docs', 'deploy'].map(async (directory) =>
      (await readdir(join(ROOT, directory), { recursive: true })).map((name) => join(directory, name)),
    ),
  );
  const paths = ['README.md', ...below.flat().filter((name) => name.endsWith('.md'))];
  return Promise.all(paths.sort().map((path) => Page.read(path)));
}
