/** Who an event is about. Serialised once a session, so that every event carries all of it and no reader needs a join. */
import type { Principal } from '../identity/principal.ts'
import { ownBytes } from '../wire/own-bytes.ts'
import { jsonValue } from './json.ts'
import type { JobIdentity, SessionIdentity } from './recorder.ts'

/** JSON as UTF-8, for the three objects that a statement adds to. */
export interface IdentityBlock {
  /** Members of `pgusher`, each with a comma before it. */
  pgusher: Buffer
  /** From the end of `pgusher` over all other members of the event to those of `db`, which is not closed. */
  rest: Buffer
  /** Of both. */
  bytes: number
}

type Fields = Record<string, unknown>

/** The object, or undefined when none of its members is known: an unknown field is absent, not an empty object. */
function known(fields: Fields): Fields | undefined {
  for (const value of Object.values(fields)) if (value !== undefined) return fields
  return undefined
}

const url = (full: string | undefined): Fields | undefined => known({ full })

/** The latest time that a Date can hold; the `exp` of a token that is refused for it can be later. */
const LAST_TIME = 8.64e15

const isoTime = (ms: number): string | undefined => (Math.abs(ms) <= LAST_TIME ? new Date(ms).toISOString() : undefined)

function idp(principal: Principal | undefined, unverifiedTokenSha256: string | undefined): Fields | undefined {
  // A hash is a fact about the bytes that came, not a claim of theirs; issuer and subject stand only beside it when verified.
  if (principal === undefined) return known({ token_sha256: unverifiedTokenSha256 })
  return {
    provider: principal.provider,
    issuer: principal.iss,
    subject: principal.subject,
    token_sha256: principal.tokenSha256,
    token_expires_at: isoTime(principal.expiresAt),
    claims: principal.auditClaims,
  }
}

function pipeline(job: Principal['job']): Fields | undefined {
  return known({
    name: job.pipelineName,
    run: known({ id: job.runId, url: url(job.runUrl) }),
    task: known({ name: job.taskName, run: known({ id: job.taskRunId }) }),
  })
}

/** Nested as in the schema; what is not known is `undefined`. */
export function identityFields(identity: JobIdentity): { pgusher: Fields; db: Fields; top: Fields } {
  const { principal, db, rule } = identity
  const job = principal?.job ?? {}
  return {
    pgusher: {
      idp: idp(principal, identity.unverifiedTokenSha256),
      actor: job.actor,
      db: known({ alias: db?.alias, role: db?.role, login: db?.login }),
    },
    db: { system: { name: 'postgresql' }, namespace: db?.namespace },
    top: {
      cicd: known({ pipeline: pipeline(job) }),
      vcs: known({
        repository: known({ url: url(job.repositoryUrl) }),
        ref: known({ head: known({ name: job.ref, revision: job.commit }) }),
        change: known({ id: job.changeId }),
      }),
      deployment: known({ environment: known({ name: job.environment }) }),
      session: known({ id: identity.sessionId }),
      client: known({ address: identity.client?.address, port: identity.client?.port }),
      tls: known({ protocol: known({ version: identity.tlsProtocol }) }),
      server: known({ address: db?.serverAddress, port: db?.serverPort }),
      security_rule: rule && { name: rule.name, ruleset: { name: rule.ruleset }, version: rule.version },
    },
  }
}

/** `{"a":1}` as `,"a":1`; nothing for an empty object. */
function members(fields: Fields): string {
  const json = jsonValue(fields)
  return json === '{}' ? '' : `,${json.slice(1, -1)}`
}

/** By principal, which the sessions of one token share, what they say of it: the newest, as jobs mostly use one database and role. */
const shared = new WeakMap<Principal, Buffer>()

export function identityBlock(identity: SessionIdentity): IdentityBlock {
  const fields = identityFields(identity)
  const json = members(fields.pgusher)
  const known = identity.principal && shared.get(identity.principal)
  const pgusher = known?.toString() === json ? known : ownBytes(Buffer.from(json))
  if (identity.principal !== undefined) shared.set(identity.principal, pgusher)
  const rest = ownBytes(Buffer.from(`}${members(fields.top)},"db":{${members(fields.db).slice(1)}`))
  return { pgusher, rest, bytes: pgusher.length + rest.length }
}
