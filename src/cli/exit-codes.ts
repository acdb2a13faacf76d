/** What the process ends with; told by `pgusher --help`. */
export const EXIT = {
  /** Done; allowed; no errors found. */
  ok: 0,
  /** Refused; errors found; failed. */
  failed: 1,
  /** Wrong usage. */
  usage: 2,
  /** An error in pgusher itself. */
  internal: 3,
} as const

/** Of `exec`, which ends as the command that it runs does: that was not run. */
export const NOT_RUN = 125
