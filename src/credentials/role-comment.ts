/** COMMENT ON ROLE as the registry of logins: who made one, for which job, until when. Readable by every user of the server. */
import { z } from 'zod'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'

const commentSchema = z.object({
  /** Version of this format. */
  pgusher: z.literal(1),
  instance: z.string(),
  /** `bootTag` of the process that made it. */
  boot: z.string(),
  /** Group role that the job may assume; what the login owns goes to it. */
  role: z.string(),
  rule: z.string(),
  expires: z.string(),
  issuer: z.string(),
  subject: z.string(),
  run: z.string().optional(),
  url: z.string().optional(),
})

export type RoleComment = z.output<typeof commentSchema>

/** Claims are bounded so that a long one does not make every reader of the catalog carry it. */
const cut = (text: string): string => (text.length > 500 ? `${text.slice(0, 499)}…` : text).toWellFormed()

export function commentFor(
  maker: { instance: string; boot: string },
  principal: Principal,
  grant: Grant,
  expiresAt: number,
): RoleComment {
  const { runId, runUrl } = principal.job
  return {
    pgusher: 1,
    instance: cut(maker.instance),
    boot: maker.boot,
    role: grant.role,
    rule: grant.rule,
    expires: new Date(expiresAt).toISOString(),
    issuer: cut(principal.iss),
    subject: cut(principal.subject),
    ...(runId === undefined ? {} : { run: cut(runId) }),
    ...(runUrl === undefined ? {} : { url: cut(runUrl) }),
  }
}

/**
 * JSON in plain ASCII: a claim may hold what the database's encoding does not have, and the catalog is read from databases of
 * other encodings and in terminals.
 */
export function formatComment(comment: RoleComment): string {
  return JSON.stringify(comment).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** Undefined for what pgusher did not write. */
export function parseComment(text: string | null): RoleComment | undefined {
  if (text === null) return undefined
  try {
    return commentSchema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}
