/** The endpoints that a job speaks HTTP with, on the TLS port: paths, requests and answers as JSON has them. */
import { z } from 'zod'
import { objectName } from '../config/scalars.ts'

export const AUDIENCE_PATH = '/v1/audience'
export const TOKEN_PATH = '/v1/token'
export const WHOAMI_PATH = '/v1/whoami'

/** `POST /v1/token`, with the job's token as Bearer. `ci` stands for the one role that the job may have. */
export const tokenRequest = z.strictObject({ database: objectName, user: objectName.default('ci') })

/** `POST /v1/whoami`, with a token or a ticket as Bearer. Without a database nothing is decided, but for a ticket, which is of one. */
export const whoamiRequest = z
  .strictObject({ database: objectName.optional(), user: objectName.optional() })
  .refine(
    ({ database, user }) => user === undefined || database !== undefined,
    'user is of a database: name it as well',
  )

const time = z.iso.datetime()

export const audienceAnswer = z.strictObject({
  /** Which audience a token of a CI system is asked for. */
  audiences: z.array(z.strictObject({ preset: z.string(), audience: z.string() })),
  /** Whether this pgusher gives tickets at all; a rule must say so as well. */
  tickets: z.boolean(),
})

export const tokenAnswer = z.strictObject({
  ticket: z.string().max(100),
  expires_at: time,
  database: z.string(),
  /** The role that it is for, also where `ci` was asked for. */
  user: z.string(),
  rule: z.string(),
  /** The same connection in three forms, each with the ticket in it. */
  urls: z.strictObject({ uri: z.string(), libpq: z.string(), jdbc: z.string() }),
})

const refusal = z.strictObject({
  /** A denial code, or of a request that is none: `bad_request`, `not_found`, `method_not_allowed`, `body_too_large`. */
  code: z.string(),
  sqlstate: z.string().optional(),
  message: z.string(),
  detail: z.string().optional(),
  hint: z.string().optional(),
  /** Of the denial in the audit. */
  id: z.string().optional(),
})

export const errorAnswer = z.strictObject({ error: refusal })

export const whoamiAnswer = z.strictObject({
  identity: z.strictObject({
    provider: z.string(),
    issuer: z.string(),
    subject: z.string(),
    claims: z.record(z.string(), z.union([z.string(), z.array(z.string())])),
    /** `repository_url`, `run_id` and so on; what the token does not say is absent. */
    job: z.record(z.string(), z.string()),
    /** Of what was shown: the token's own end or the ticket's. */
    expires_at: time,
  }),
  decision: z
    .strictObject({
      allowed: z.boolean(),
      rule: z.string().optional(),
      database: z.string().optional(),
      role: z.string().optional(),
      error: refusal.optional(),
    })
    .optional(),
})

export type AudienceAnswer = z.output<typeof audienceAnswer>
export type TokenAnswer = z.output<typeof tokenAnswer>
export type WhoamiAnswer = z.output<typeof whoamiAnswer>
export type Refusal = z.output<typeof refusal>
