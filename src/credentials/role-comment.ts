/** COMMENT ON ROLE as the registry of logins: who made one, for which job, until when. Readable by every user of the server. */
import { z } from 'zod'
import { asciiJson, cut, jobSummary } from '../identity/job-summary.ts'
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
  provider: z.string().optional(),
  issuer: z.string(),
  subject: z.string(),
  repository: z.string().optional(),
  ref: z.string().optional(),
  commit: z.string().optional(),
  change: z.string().optional(),
  environment: z.string().optional(),
  pipeline: z.string().optional(),
  run: z.string().optional(),
  attempt: z.string().optional(),
  url: z.string().optional(),
  task: z.string().optional(),
  actor: z.string().optional(),
})

export type RoleComment = z.output<typeof commentSchema>

/** Characters of a value: a long claim must not make every reader of the catalog carry it. */
const LONGEST = 500

export function commentFor(
  maker: { instance: string; boot: string },
  principal: Principal,
  grant: Grant,
  expiresAt: number,
): RoleComment {
  return {
    pgusher: 1,
    instance: cut(maker.instance, LONGEST),
    boot: maker.boot,
    role: grant.role,
    rule: grant.rule,
    expires: new Date(expiresAt).toISOString(),
    ...jobSummary(principal, LONGEST),
  }
}

/** In ASCII, since the catalog is read from databases of several encodings. */
export function formatComment(comment: RoleComment): string {
  return asciiJson(comment)
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
