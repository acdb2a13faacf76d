/** What `pgusher whoami` prints for people. Every value comes from a token: none may act on a terminal. */
import type { OwnIdentity } from '../client/claims.ts'
import { refusalText } from '../client/refusal.ts'
import { hostAndPort, type ServerAddress } from '../client/server-address.ts'
import type { WhoAmI } from '../client/server-api.ts'
import { printable } from '../config/quote.ts'
import type { AccessError } from '../errors.ts'

type Row = readonly [string, string | undefined]

/** @param name of the CI system */
export function identityText(name: string, server: ServerAddress, identity: WhoAmI['identity']): string {
  const { provider, issuer, subject, job, expires_at } = identity
  const run = job['run_attempt'] === undefined ? job['run_id'] : `${job['run_id'] ?? ''}, attempt ${job['run_attempt']}`
  return table(`This job, for pgusher at ${hostAndPort(server)}:`, [
    ['provider', `${name} (${provider})`],
    ['issuer', issuer],
    ['subject', subject],
    ['repository', job['repository_url']],
    ['ref', job['ref']],
    ['commit', job['commit']],
    ['change', job['change_id']],
    ['environment', job['environment']],
    ['pipeline', job['pipeline_name']],
    ['run', run],
    ['run url', job['run_url']],
    ['task', job['task_name']],
    ['actor', job['actor']],
    ['good until', moment(Date.parse(expires_at))],
  ])
}

export function decisionText(
  { identity, decision }: WhoAmI,
  { database, user }: { database: string; user: string },
): string {
  if (decision === undefined) return ''
  // A ticket is of one database and role, which it was not asked for.
  const { allowed, rule = '?', role = user, database: where = database, error } = decision
  if (allowed) {
    return `\nLet in: role ${printable(role)} on database ${printable(where)}, by rule ${printable(rule)}.\n`
  }
  const { sqlstate = '', message: reason = 'without a reason', detail, hint, id } = error ?? {}
  const message = id === undefined || reason.includes(id) ? reason : `${reason} [${id}]`
  return `\n${refusalText({ sqlstate, message, detail, hint }, { database: where, user: role, identity: shownIdentity(identity) })}`
}

/** The token itself is refused, whatever database it is for. */
export function refusedText({ message, detail, hint, sqlstate }: AccessError): string {
  const lines = [
    `pgusher: refused (SQLSTATE ${printable(sqlstate)})`,
    `  ${printable(message)}`,
    ...(detail ?? '').split('\n').flatMap((line) => (line === '' ? [] : [`  ${printable(line)}`])),
    ...(hint === undefined ? [] : [`  hint: ${printable(hint)}`]),
  ]
  return `${lines.join('\n')}\n`
}

function shownIdentity({ claims }: WhoAmI['identity']): OwnIdentity {
  const shown = Object.entries(claims).map(([name, value]) => [printable(name), printable([value].flat().join(', '))])
  return { job: {}, claims: new Map(shown as [string, string][]) }
}

export function ownClaimsText(name: string, claims: Readonly<Record<string, unknown>>): string {
  const rows = Object.entries(claims).map(([claim, value]): Row => [claim, claimText(claim, value)])
  return table(`What the token of ${name} says of this job; nobody has verified it:`, rows)
}

function claimText(claim: string, value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number' && /^(exp|iat|nbf|auth_time)$/.test(claim)) return `${value} (${moment(value * 1000)})`
  return JSON.stringify(value) ?? ''
}

/** `2026-11-21 09:40:12 UTC, in 4 min 58 s`. @param at milliseconds since the epoch */
export function moment(at: number, now: number = Date.now()): string {
  // What Date can hold, and a claim need not.
  if (!(Math.abs(at) <= 8.64e15)) return 'no time'
  const seconds = Math.round(Math.abs(at - now) / 1000)
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60]
  const parts = [hours > 0 ? `${hours} h` : '', minutes > 0 ? `${minutes} min` : '', `${seconds % 60} s`]
  const span = parts.filter((part) => part !== '').join(' ')
  const when = new Date(at).toISOString().replace('T', ' ').slice(0, -5)
  return `${when} UTC, ${at < now ? `${span} ago` : `in ${span}`}`
}

function table(title: string, rows: readonly Row[]): string {
  const known = rows.filter((row): row is readonly [string, string] => row[1] !== undefined)
  const width = Math.min(40, Math.max(...known.map(([name]) => name.length)))
  const lines = known.map(([name, value]) => `  ${printable(name).padEnd(width)}  ${printable(value)}`.trimEnd())
  return `${[title, ...lines].join('\n')}\n`
}
