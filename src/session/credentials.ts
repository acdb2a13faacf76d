/** Minters by database, the leases over them, and the sweeper's clock; what happens to a credential goes to audit and metrics. */
import type { JobIdentity, Recorder } from '../audit/recorder.ts'
import { createMinter } from '../credentials/create.ts'
import { type CredentialEvent, createLeases, type Leases } from '../credentials/leases.ts'
import type { Minter } from '../credentials/minter.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'

/** Milliseconds between two looks for what a crashed pgusher left. An orphan is removed on the second sight, 20 s apart at least. */
const SWEEP_INTERVAL = 15_000

type Target = UpstreamTarget & { dbname: string }

export interface CredentialsOptions {
  targets(): ReadonlyMap<string, Target>
  instance: { name: string; boot: string }
  recorder: Recorder
  metrics: Metrics
  log: Logger
}

export interface Credentials {
  leases: Leases
  /** Credentials that are not taken back yet. */
  live(): number
  /** Resolves false when something could not be taken back; its role cannot log in and the next start removes it. */
  revokeAll(): Promise<boolean>
  close(): Promise<void>
}

export function createCredentials({ targets, instance, recorder, metrics, log }: CredentialsOptions): Credentials {
  /** By the database entry's text, so that a reload which changes an entry gets a new minter and others keep theirs. */
  const minters = new Map<string, { key: string; minter: Minter }>()
  const retired: Minter[] = []
  let live = 0

  function minterFor(alias: string): Minter {
    const target = targets().get(alias)!
    const key = JSON.stringify(target)
    const known = minters.get(alias)
    if (known?.key === key) return known.minter
    if (known !== undefined) retired.push(known.minter)
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

  const leases = createLeases({ minterFor, onEvent })

  async function sweep(): Promise<void> {
    const { removed, failed } = await leases.sweepNow(targets().keys())
    for (const _login of removed) metrics.credential('ephemeral-role', 'swept')
    if (removed.length > 0) log.warn({ removed }, 'roles that a pgusher before this one left were removed')
    for (const one of failed) log.warn({ ...one }, 'orphaned roles: not looked for, or not removed')
  }

  let sweeping = sweep()
  const timer = setInterval(() => {
    sweeping = sweeping.then(sweep)
  }, SWEEP_INTERVAL).unref()

  return {
    leases,
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
