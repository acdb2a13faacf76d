/** Minters by database, the leases over them, and the sweeper's clock; what happens to a credential goes to audit and metrics. */
import type { AuditEvent, JobIdentity, Recorder } from '../audit/recorder.ts'
import { createMinter } from '../credentials/create.ts'
import { type CredentialEvent, createLeases, type Leases } from '../credentials/leases.ts'
import type { MintedCredential, Minter } from '../credentials/minter.ts'
import { createTickets, type Tickets } from '../credentials/tickets.ts'
import { AccessError } from '../errors.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'
import { createTicketSweep } from './ticket-sweep.ts'

/** Milliseconds between two looks for what a crashed pgusher left. An orphan is removed on the second sight, 20 s apart at least. */
const SWEEP_INTERVAL = 15_000

type Target = UpstreamTarget & { dbname: string }

export interface CredentialsOptions {
  targets(): ReadonlyMap<string, Target>
  /** Of tickets, in base64; none where they are off. */
  ticketKeys(): readonly string[]
  /** A credential is about to be taken back: what still uses it must go. */
  onTakeBack(credential: MintedCredential): void
  instance: { name: string; boot: string }
  recorder: Recorder
  metrics: Metrics
  log: Logger
}

export interface Credentials {
  leases: Leases
  tickets: Tickets
  /** Credentials that are not taken back yet. */
  live(): number
  /** Resolves false when something could not be taken back; its role cannot log in and the next start removes it. */
  revokeAll(): Promise<boolean>
  close(): Promise<void>
}

export function createCredentials(options: CredentialsOptions): Credentials {
  const { targets, ticketKeys, instance, recorder, metrics, log } = options
  /** By the database entry's text, so that a reload which changes an entry gets a new minter and others keep theirs. */
  const minters = new Map<string, { key: string; minter: Minter }>()
  /** Of entries that a reload changed, as long as what they made is there. */
  const retired = new Set<Minter>()
  let live = 0

  function minterFor(alias: string): Minter {
    const target = targets().get(alias)
    const known = minters.get(alias)
    if (target === undefined) {
      // A reload took the entry away; what was made by it may still have to be removed.
      if (known !== undefined) return known.minter
      throw new AccessError('database_unknown', `database "${alias}" is not configured any more`)
    }
    const key = JSON.stringify(target)
    if (known?.key === key) return known.minter
    if (known !== undefined) retired.add(known.minter)
    const minter = createMinter(target, instance)
    minters.set(alias, { key, minter })
    return minter
  }

  function onEvent(event: CredentialEvent): void {
    if (event.event === 'credential.issued') live++
    if (event.event === 'credential.revoked') live--
    metrics.credential(event.kind, event.event.slice('credential.'.length) as 'issued' | 'revoked' | 'revoke_failed')
    recorder.event(
      {
        event: event.event,
        outcome: event.event === 'credential.revoke_failed' ? 'failure' : 'success',
        fields: {
          pgusher: {
            credential: { kind: event.kind, login: event.login, ttl_s: event.ttlSeconds, reason: event.reason },
          },
        },
      },
      identityOf(event, targets().get(event.alias)),
    )
    if (event.event === 'credential.revoke_failed')
      log.error(
        { login: event.login, database: event.alias, reason: event.reason },
        'a credential could not be taken back; it is tried again',
      )
  }

  async function countKilled(givenBack: Promise<number>): Promise<number> {
    const count = await givenBack
    metrics.ticket('killed', count)
    return count
  }

  const leases = createLeases({ minterFor, onEvent, onTakeBack: options.onTakeBack })
  const tickets = createTickets({ keys: ticketKeys, aliases: () => targets().keys(), minterFor })
  const sweepTickets = createTicketSweep({ aliases: () => targets().keys(), minterFor, metrics, log })
  /** Orphans whose failure is on record; it is said once. */
  const stuck = new Set<string>()

  async function sweep(): Promise<void> {
    const { removed, failed } = await leases.sweepNow(targets().keys())
    for (const { login, alias } of removed) {
      metrics.credential('ephemeral-role', 'swept')
      recorder.event(orphanEvent('credential.revoked', login, alias, 'orphan'))
      stuck.delete(login)
    }
    if (removed.length > 0) log.warn({ removed }, 'roles that a pgusher before this one left were removed')
    for (const one of failed) {
      log.warn({ ...one }, 'orphaned roles: not looked for, or not removed')
      if (one.login === '' || stuck.has(one.login)) continue
      stuck.add(one.login)
      recorder.event(orphanEvent('credential.revoke_failed', one.login, one.alias, one.reason))
    }
    await sweepTickets()
  }

  /** Each holds admin connections: reloads would use up PostgreSQL's. */
  async function closeRetired(): Promise<void> {
    const unused = [...retired].filter((minter) => !leases.uses(minter))
    for (const minter of unused) retired.delete(minter)
    await Promise.all(unused.map((minter) => minter.close()))
  }

  let sweeping = sweep()
  const timer = setInterval(() => {
    sweeping = sweeping.then(closeRetired).then(sweep)
  }, SWEEP_INTERVAL).unref()

  return {
    leases,
    tickets: {
      ...tickets,
      giveBackJob: (jobKey) => countKilled(tickets.giveBackJob(jobKey)),
      giveBackRun: (runUrl) => countKilled(tickets.giveBackRun(runUrl)),
    },
    live: () => live,
    revokeAll: async () => (await leases.revokeAll('shutdown')).length === 0,
    async close() {
      clearInterval(timer)
      await sweeping
      await Promise.all(
        [...retired, ...[...minters.values()].map(({ minter }) => minter)].map((minter) => minter.close()),
      )
    },
  }
}

/** A process before this one, or another replica, recorded for whom the login was made. */
function orphanEvent(
  event: 'credential.revoked' | 'credential.revoke_failed',
  login: string,
  alias: string,
  reason: string,
): AuditEvent {
  const credential = { kind: 'ephemeral-role', login, ttl_s: 0, reason }
  const outcome = event === 'credential.revoked' ? 'success' : 'failure'
  return { event, outcome, fields: { pgusher: { credential, db: { alias, login } } } }
}

function identityOf(event: CredentialEvent, target: Target | undefined): JobIdentity | undefined {
  if (event.principal === undefined || event.grant === undefined) return undefined
  const { principal, grant } = event
  return {
    principal,
    db: {
      alias: event.alias,
      role: grant.role,
      login: event.login,
      ...(target === undefined ? {} : { namespace: target.dbname }),
    },
    rule: { name: grant.rule, ruleset: grant.ruleset, version: grant.policyVersion },
  }
}
