/** What `serve --workers` gives to the composition root. */
import type { Carrier } from '../proxy.ts'
import { PLACES } from '../session/cancel-keys.ts'
import { openCrew } from './crew.ts'
import { forkWorker } from './fork.ts'

/** As many as a cancel key can tell apart. */
export const MAX_WORKERS = PLACES

/** @param count 2 to `MAX_WORKERS` */
export function workers(count: number): Carrier {
  return { process: 'primary', open: (parts, instance) => openCrew(count, instance, parts, forkWorker) }
}
