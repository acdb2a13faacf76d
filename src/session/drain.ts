/** Ends sessions in bulk: at shutdown and after a reload. */
import { setTimeout as delay } from 'node:timers/promises'
import { AccessError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { JobWindows } from './job-windows.ts'
import type { LiveSession, Registry } from './registry.ts'
import { noLongerAllowed, stillGranted } from './still-allowed.ts'

const POLL = 50

/**
 * Idle sessions end at once, busy ones when their statement or transaction is over, all of them when the time is up.
 * Resolves when none is left. @param timeout milliseconds
 */
export async function drainSessions(registry: Registry, timeout: number): Promise<void> {
  const deadline = performance.now() + timeout
  for (;;) {
    const overdue = performance.now() >= deadline
    const ending = registry.all().filter((session) => overdue || !session.busy)
    for (const session of ending) session.end('shutdown', shuttingDown())
    const ended = Promise.all(ending.map((session) => session.ended))
    // One that takes its time to close puts off no other's end.
    await (overdue ? ended : Promise.race([ended, delay(deadline - performance.now(), undefined, { ref: false })]))
    if (registry.size === 0) return
    await delay(Math.max(1, Math.min(POLL, deadline - performance.now())))
  }
}

function shuttingDown(): AccessError {
  return new AccessError('session_killed', 'session ended: pgusher is shutting down', {
    hint: 'Connect again: another replica or its successor answers.',
  })
}

/** Ends every session that the policy would not let in again, or not with the same role and database. Returns how many. */
export function endDisallowed(sessions: readonly LiveSession[], policy: Policy, now: number): number {
  let ended = 0
  for (const session of sessions) {
    const error = noLongerAllowed(policy, session, now)
    if (error === undefined) continue
    ended++
    session.end('policy', error)
  }
  return ended
}

/** Closes the windows that the policy would not open, and shortens the longer ones. Returns how many were closed. */
export function closeDisallowedWindows(
  windows: Pick<JobWindows, 'closeDisallowed'>,
  policy: Policy,
  now: number,
): number {
  return windows.closeDisallowed((principal, grant) => stillGranted(policy, principal, grant, now), now)
}
