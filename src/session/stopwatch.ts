/** Seconds between the steps of connecting, for `pgusher.timing` and the metrics. */
import type { ConnectStep } from '../telemetry/metrics.ts'

/** Seconds by `pgusher.timing.*`. */
export type Timing = Partial<Record<`${ConnectStep}_s`, number>>

export interface Stopwatch {
  /** Seconds of the TLS handshake, which is over before anything else is known. */
  tlsSeconds: number | undefined
  /** Ends a step: the time since the last call is its. */
  split(step: ConnectStep | 'authenticate'): void
  /** `{ tls_s, verify_s, mint_s, upstream_s, total_s }`, as far as they came; the wait for the job's token is in `total_s` only. */
  timing(): Timing
}

export function createStopwatch(): Stopwatch {
  const started = performance.now()
  let last = started
  const steps = new Map<string, number>()
  const watch: Stopwatch = {
    tlsSeconds: undefined,
    split(step) {
      const now = performance.now()
      steps.set(step, (now - last) / 1000)
      last = now
    },
    timing() {
      const timing: Timing = {}
      if (watch.tlsSeconds !== undefined) timing.tls_s = round(watch.tlsSeconds)
      for (const step of ['verify', 'mint', 'upstream'] as const) {
        const seconds = steps.get(step)
        if (seconds !== undefined) timing[`${step}_s`] = round(seconds)
      }
      timing.total_s = round((performance.now() - started) / 1000)
      return timing
    },
  }
  return watch
}

/** The same by step, for the metrics. */
export function stepsOf(timing: Timing): [ConnectStep, number][] {
  const steps: ConnectStep[] = ['tls', 'verify', 'mint', 'upstream', 'total']
  return steps.flatMap((step): [ConnectStep, number][] => {
    const seconds = timing[`${step}_s`]
    return seconds === undefined ? [] : [[step, seconds]]
  })
}

/** Microseconds are what the clock gives. */
function round(seconds: number): number {
  return Math.round(seconds * 1e6) / 1e6
}
