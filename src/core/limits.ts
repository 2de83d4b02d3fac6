/** Bandwidth classes of what is sent beside the log. */
export const CLASSES = ['slow', 'standard', 'fast'] as const;
export type ClassName = (typeof CLASSES)[number];
