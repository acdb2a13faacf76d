/**
 * Job attempts that an operator has ended: whatever they show, they are not let in again. In this process only. A bar ends when
 * nothing that the job could show is good any more, and is renewed while the job keeps trying.
 */
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import { runPage, withoutAttempt } from '../identity/run-page.ts'

/** Who ended a job, and why, for the job to read. */
export interface BarReason {
  /** The operator, as the command told it. */
  user: string
  reason: string
}

/** One job attempt by its key, or all jobs of a run by its URL; a URL without the attempt stands for each attempt. */
export type BarTarget = { jobKey: string } | { runUrl: string }

export interface Bars {
  /** @param life milliseconds, at least a day */
  bar(target: BarTarget, why: BarReason, life: number): void
  /** @throws AccessError `job_barred` */
  refuse(principal: Principal): void
  /** For another process; from the oldest. */
  list(): Bar[]
  /** What another one has listed. */
  put(bar: Bar): void
  readonly size: number
}

export interface Bar extends BarReason {
  /** Of a job or a run. */
  key: string
  /** Milliseconds. */
  life: number
  /** Milliseconds since the epoch. */
  until: number
}

/** Some job attempts get tokens for as long as they run, and none runs longer than this by default. */
const MIN_LIFE = 24 * 3_600_000
/** Only an operator makes bars; about 30 MiB. */
const MAX_BARS = 100_000

/** @param now milliseconds since the epoch */
export function createBars(now: () => number = Date.now, maxBars = MAX_BARS): Bars {
  const bars = new Map<string, Bar>()

  function put(bar: Bar): void {
    bars.delete(bar.key)
    bars.set(bar.key, bar)
    if (bars.size <= maxBars) return
    for (const [old, { until }] of bars) if (until <= now()) bars.delete(old)
    const [oldest] = bars.keys()
    if (bars.size > maxBars && oldest !== undefined) bars.delete(oldest)
  }

  return {
    bar(target, { user, reason }, life) {
      const lasts = Math.max(life, MIN_LIFE)
      const key = 'jobKey' in target ? keyOfJob(target.jobKey) : keyOfRun(target.runUrl)
      put({ key, user, reason, life: lasts, until: now() + lasts })
    },
    refuse(principal) {
      for (const key of keysOf(principal)) {
        const bar = bars.get(key)
        if (bar === undefined) continue
        if (bar.until <= now()) {
          bars.delete(key)
          continue
        }
        bar.until = now() + bar.life
        throw barred(bar)
      }
    },
    list: () => [...bars.values()],
    put,
    get size() {
      return bars.size
    },
  }
}

const keyOfJob = (jobKey: string): string => `job ${jobKey}`
const keyOfRun = (url: string): string => `run ${runPage(url)}`

function keysOf({ jobKey, job }: Principal): string[] {
  if (job.runUrl === undefined) return [keyOfJob(jobKey)]
  return [keyOfJob(jobKey), keyOfRun(job.runUrl), keyOfRun(withoutAttempt(job.runUrl))]
}

function barred({ user, reason }: BarReason): AccessError {
  return new AccessError('job_barred', `the operator (${user}) has ended this job: ${reason}`, {
    hint: "This job attempt's tokens and tickets are not taken any more. Ask the operator before you run it again.",
  })
}
