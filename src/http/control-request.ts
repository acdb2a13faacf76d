/** What the commands send over the control socket. */
import { z } from 'zod'
import { printable } from '../config/quote.ts'
import type { KillOrder } from '../session/kill.ts'

export const OVERVIEW_PATH = '/v1/sessions'
export const KILL_PATH = '/v1/kill'

/** It goes to jobs, events and terminals. */
function line(max: number) {
  return z
    .string()
    .trim()
    .min(1)
    .max(max)
    .refine((text) => printable(text) === text, 'must be printable')
}

/** Lengths as a person writes them; a job's key holds claims. */
export const killRequest = z.strictObject({
  target: z.strictObject({ by: z.enum(['session', 'run', 'job', 'rule']), value: z.string().min(1).max(8192) }),
  user: line(100),
  sudo_user: line(100).optional(),
  reason: line(200),
})

export type KillRequest = z.output<typeof killRequest>

/** Undefined with what is wrong, for the person who typed it. */
export function readKillRequest(body: string): { order: KillOrder } | { problem: string } {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    return { problem: 'the body is not JSON' }
  }
  const parsed = killRequest.safeParse(value)
  if (!parsed.success) {
    const [first] = parsed.error.issues
    return { problem: `${first?.path.join('.') || 'the request'}: ${first?.message ?? 'not as wanted'}` }
  }
  const { target, user, sudo_user: sudoUser, reason } = parsed.data
  return { order: { target, user, reason, ...(sudoUser === undefined ? {} : { sudoUser }) } }
}
