import type { Position } from '../../core/position.ts';
import type { Directory } from './directory.ts';
import type { LogFile } from './file.ts';
import { idText } from './names.ts';

/** The start of a file as a place in the log. */
export async function startOf(directory: Directory, origin: string, file: LogFile): Promise<Position> {
  const segment = directory.segmentOf(file);
  return { origin, incarnation: await file.incarnation(), segment, offset: 0, id: idText(segment, 0) };
}
