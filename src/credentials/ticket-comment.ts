/**
 * COMMENT ON ROLE of a ticket's carrier: in the clear until when it lasts and keyed hashes of its job and its run, so that
 * whoever cleans up needs no key; the rest is sealed. Every user of the server can read it.
 */

export interface CarrierHead {
  /** Milliseconds since the epoch. */
  expiresAt: number
  /** `jobTag` */
  job: string
  /** `runTags`: none where the CI system's tokens lead to no page of the run. */
  runs: readonly string[]
}

export interface CarrierComment extends CarrierHead {
  /** Undefined where the ticket was given back and its role could not be dropped. */
  sealed: string | undefined
}

const COMMENT =
  /^pgusher ticket 1: until (\S+), job ([0-9a-f]{32}), (?:run ([0-9a-f ]{32,65}), )?(?:sealed ([A-Za-z0-9+/=]*)|given back)$/

/** Characters in which everything but the sealed part is found. */
export const HEAD_LENGTH = 190

export function formatCarrierComment({ expiresAt, job, runs, sealed }: CarrierComment): string {
  const run = runs.length === 0 ? '' : `run ${runs.join(' ')}, `
  const end = sealed === undefined ? 'given back' : `sealed ${sealed}`
  return `pgusher ticket 1: until ${new Date(expiresAt).toISOString()}, job ${job}, ${run}${end}`
}

/** Of the whole comment or of its first `HEAD_LENGTH` characters; undefined for what pgusher did not write. */
export function parseCarrierComment(text: string | null): CarrierComment | undefined {
  const [, until = '', job = '', runs, sealed] = COMMENT.exec(text ?? '') ?? []
  const expiresAt = Date.parse(until)
  return Number.isNaN(expiresAt) ? undefined : { expiresAt, job, runs: runs?.split(' ') ?? [], sealed }
}
