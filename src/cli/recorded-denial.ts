/** A refusal as the audit has it, and how `pgusher why` shows it. */
import { z } from 'zod'
import { printable, quote } from '../config/quote.ts'
import { traceLines } from './trace-text.ts'

const text = z.string().optional()
const condition = z.looseObject({ claim: z.string(), wanted: z.string(), got: text, ok: z.boolean() })
const trace = z.looseObject({
  policy_version: z.string(),
  require: z.array(condition),
  rules: z.array(
    z.looseObject({
      rule: z.string(),
      effect: z.enum(['allow', 'deny']),
      skipped: text,
      matched: z.boolean(),
      conditions: z.array(condition),
    }),
  ),
  omitted: z.number().optional(),
})
const nearest = z.looseObject({ rule: z.string(), claim: z.string(), wanted: z.string(), got: text })

const recordedDenial = z.looseObject({
  time: text,
  pgusher: z.looseObject({
    instance: text,
    actor: text,
    idp: z
      .looseObject({
        provider: text,
        issuer: text,
        subject: text,
        token_sha256: text,
        claims: z.record(z.string(), z.union([z.string(), z.array(z.string())])).optional(),
      })
      .optional(),
    db: z.looseObject({ alias: text, role: text }).optional(),
    decision: z.looseObject({
      id: z.string(),
      stage: text,
      code: text,
      message: text,
      nearest: z.array(nearest).optional(),
      trace: trace.optional(),
    }),
  }),
  client: z.looseObject({ address: text, port: z.number().optional() }).optional(),
  tls: z.looseObject({ protocol: z.looseObject({ version: text }).optional() }).optional(),
  cicd: z
    .looseObject({
      pipeline: z
        .looseObject({
          name: text,
          run: z.looseObject({ id: text, url: z.looseObject({ full: text }).optional() }).optional(),
        })
        .optional(),
    })
    .optional(),
  vcs: z
    .looseObject({
      repository: z.looseObject({ url: z.looseObject({ full: text }).optional() }).optional(),
      ref: z.looseObject({ head: z.looseObject({ name: text, revision: text }).optional() }).optional(),
    })
    .optional(),
  db: z
    .looseObject({
      response: z.looseObject({ status_code: text }).optional(),
      query: z.looseObject({ text, summary: text }).optional(),
    })
    .optional(),
})

export type RecordedDenial = z.infer<typeof recordedDenial>

/** The event of a line that has this denial's id; undefined for any other line that mentions it. */
export function readDenial(line: string, id: string): RecordedDenial | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  const { success, data } = recordedDenial.safeParse(value)
  return success && data.pgusher.decision.id === id ? data : undefined
}

const STAGES: Readonly<Record<string, string>> = {
  accept: 'the connection itself',
  handshake: 'TLS and the startup message',
  authenticate: 'the password',
  verify: 'the token',
  exchange: 'the exchange of a token for a ticket',
  whoami: 'the question who the job is',
  decide: 'the policy',
  mint: 'the credential for the database',
  upstream: 'the connection to the database',
  session: 'a statement in a session',
}

export function denialText(denial: RecordedDenial): string {
  const { decision, idp } = denial.pgusher
  const lines = [...headLines(denial), '', `MESSAGE     ${printable(decision.message ?? '')} [${decision.id}]`]
  if (decision.trace !== undefined) {
    lines.push('', `policy      ${decision.trace.policy_version.slice(0, 12)}`, '')
    lines.push(...traceLines({ issuer: idp?.issuer ?? '', ...decision.trace }))
  } else if (decision.nearest !== undefined) {
    const near = decision.nearest.map(
      ({ rule, claim, wanted, got }) =>
        `  ✗ ${printable(rule)}: ${printable(claim)}  wanted ${printable(wanted)}, got ${printable(got ?? 'nothing')}`,
    )
    lines.push('', 'nearest rules', ...near)
  }
  return `${lines.join('\n')}\n`
}

function headLines({ time, pgusher, client, tls, cicd, vcs, db }: RecordedDenial): string[] {
  const { decision, idp, actor, instance } = pgusher
  const { stage = 'unknown', code = 'unknown' } = decision
  const sqlstate = db?.response?.status_code
  const repository = [vcs?.repository?.url?.full, vcs?.ref?.head?.name, vcs?.ref?.head?.revision]
  const fields: readonly (readonly [string, string | undefined])[] = [
    ['denial', `${decision.id}, ${time ?? 'at an unknown time'}`],
    ['instance', instance],
    ['client', clientText(client, tls?.protocol?.version)],
    ['request', pgusher.db && `database ${quote(pgusher.db.alias ?? '')}, user ${quote(pgusher.db.role ?? '')}`],
    ['issuer', idp?.issuer && `${idp.issuer} (${idp.provider ?? 'unknown'})`],
    ['subject', idp?.subject === undefined ? undefined : quote(idp.subject)],
    ['repository', repository.filter((part) => part !== undefined).join(', ') || undefined],
    ['pipeline', cicd?.pipeline?.name],
    ['run', cicd?.pipeline?.run?.url?.full ?? cicd?.pipeline?.run?.id],
    ['actor', actor],
    ['job', idp?.issuer === undefined ? unknownJob(idp?.token_sha256) : undefined],
    ['stage', `${stage}: ${STAGES[stage] ?? 'told by its name only'}`],
    ['statement', db?.query?.text ?? db?.query?.summary],
    ['code', sqlstate === undefined ? code : `${code}, SQLSTATE ${sqlstate}`],
  ]
  return fields.flatMap(([name, value]) => (value === undefined ? [] : [`${name.padEnd(11)} ${printable(value)}`]))
}

function clientText(client: RecordedDenial['client'], tls: string | undefined): string | undefined {
  if (client?.address === undefined) return undefined
  const { address, port } = client
  const shown = address.includes(':') ? `[${address}]` : address
  return `${port === undefined ? address : `${shown}:${port}`}${tls === undefined ? '' : `, ${tls}`}`
}

function unknownJob(tokenSha256: string | undefined): string {
  const shown = tokenSha256 === undefined ? '' : `; SHA-256 of what was shown: ${tokenSha256}`
  return `not known, as no token was verified${shown}`
}
