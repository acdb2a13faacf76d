/** How many sessions each job holds by each rule, in this process. */
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'

/**
 * Counts one session.
 * @returns what takes it off again; to be called once.
 * @throws AccessError `limit_sessions` when the job holds `grant.maxConnections` already.
 */
export type SessionCount = (principal: Principal, grant: Grant) => () => void

export function createSessionCount(): SessionCount {
  const sessions = new Map<string, number>()
  return ({ jobKey }, { rule, maxConnections }) => {
    const key = JSON.stringify([jobKey, rule])
    const held = sessions.get(key) ?? 0
    if (held >= maxConnections) {
      const hint =
        'Close a connection before opening another, use a smaller connection pool, or have max_connections of the rule raised.'
      const text = `this job holds ${held} ${held === 1 ? 'session' : 'sessions'}, and rule "${rule}" allows no more than ${maxConnections}`
      throw new AccessError('limit_sessions', text, { hint })
    }
    sessions.set(key, held + 1)
    return () => {
      const left = (sessions.get(key) ?? 1) - 1
      if (left === 0) sessions.delete(key)
      else sessions.set(key, left)
    }
  }
}
