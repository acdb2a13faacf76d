/** Prometheus metrics, in a registry of their own. Labels come from closed sets only: nothing that a client chose. */
import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { DENIAL_SQLSTATE } from '../errors.ts'

export type SessionOutcome = 'success' | 'failure' | 'denied'
export type StatementOutcome = 'success' | 'failure' | 'denied' | 'unknown'
/** `in`: from the job to the upstream. */
export type Direction = 'in' | 'out'
export type ConnectStep = 'tls' | 'verify' | 'mint' | 'upstream' | 'total'
const CREDENTIAL_KINDS = ['ephemeral-role', 'client-certificate'] as const
export type CredentialKind = (typeof CREDENTIAL_KINDS)[number]
const CREDENTIAL_EVENTS = ['issued', 'revoked', 'revoke_failed', 'swept'] as const
export type CredentialEvent = (typeof CREDENTIAL_EVENTS)[number]
/** `expired`: by the sweeper; `killed`: with its job. */
export type TicketEvent = 'issued' | 'returned' | 'expired' | 'killed'
/** `reused`: by a session; `refused`: there was no room; `evicted`: for a newer one; `odd`: not as it was when it was fresh; `ended`: with its credential, by a reload or a kill. */
export type WarmOutcome = 'reused' | 'refused' | 'evicted' | 'odd' | 'expired' | 'ended'
const RELOAD_OUTCOMES = ['success', 'failure'] as const
export type ReloadOutcome = (typeof RELOAD_OUTCOMES)[number]

/** What exists now; read when Prometheus asks. */
export interface LiveGauges {
  /** Sessions past ReadyForQuery. */
  sessions?: () => number
  /** Connections that are not authenticated yet. */
  unauthenticated?: () => number
  /** Minted credentials that are not taken back yet. */
  credentials?: () => number
  /** Upstream connections that no session has. */
  warm?: () => number
  /** Other processes that carry connections. */
  workers?: () => number
  /** False: the audit does not work and nothing is let in. */
  auditAccepting?: () => boolean
  /** By issuer: false where its keys are not there or too old, and its tokens are refused. */
  issuerKeys?: () => Readonly<Record<string, boolean>>
  /** Events recorded since the start. */
  auditEvents?: () => number
}

/** A metric with its values, as prom-client has it. */
export type MetricFamily = Omit<Awaited<ReturnType<Registry['getMetricsAsJSON']>>[number], 'collect'>

export interface Metrics {
  /** A connection was accepted. */
  connection(): void
  /** A session ended, or a connection ended before it became one. `code` is an end reason or a denial code of ours. */
  sessionEnded(outcome: SessionOutcome, code: string): void
  denial(code: string): void
  /** `count` executions with the same outcome. */
  statements(outcome: StatementOutcome, count?: number): void
  bytes(direction: Direction, count: number): void
  /** Seconds. */
  connectStep(step: ConnectStep, seconds: number): void
  credential(kind: CredentialKind, event: CredentialEvent): void
  ticket(event: TicketEvent, count?: number): void
  /** What became of a warm upstream connection. */
  warmUpstream(outcome: WarmOutcome): void
  auditFailure(): void
  /** The version in force (SHA-256 of the policy); the one before it disappears. */
  policyVersion(version: string): void
  policyReload(outcome: ReloadOutcome): void
  /** Gauges that are read when they are asked for. */
  watch(live: LiveGauges): void
  /** As plain data, for another process. */
  collect(): Promise<MetricFamily[]>
  /** Text in Prometheus' exposition format; `others` are of other processes. */
  render(others?: readonly MetricFamily[][]): Promise<string>
  contentType: string
}

/** Measured: tls 2 ms, verify 0.2 ms, mint 3 to 30 ms, upstream 5 to 20 ms; a far upstream or a sick one takes seconds. */
const CONNECT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15]

/** A label that is not a word of ours would be somebody's input, and one series for each of them. */
const word = (text: string): string => (/^[a-z][a-z_]{0,40}$/.test(text) ? text : 'other')

function counters(registry: Registry) {
  const counter = <Label extends string>(name: string, help: string, labelNames: Label[] = []): Counter<Label> =>
    new Counter({ name: `pgusher_${name}`, help, labelNames, registers: [registry] })
  return {
    connections: counter('connections_total', 'Connections accepted'),
    sessions: counter('sessions_total', 'Sessions ended, and connections that never became one', ['outcome', 'code']),
    denials: counter('denials_total', 'Connections and statements refused, by denial code', ['code']),
    bytes: counter('bytes_total', 'Bytes relayed; in: from the job to the database', ['direction']),
    credentials: counter('credentials_total', 'What happened to minted credentials', ['kind', 'event']),
    tickets: counter('tickets_total', 'What happened to tickets', ['event']),
    warm: counter('warm_upstreams_total', 'What became of upstream connections after their session', ['outcome']),
    auditFailures: counter('audit_failures_total', 'Times that the audit sink began to fail'),
    reloads: counter('policy_reload_total', 'Attempts to load a policy', ['outcome']),
  }
}

/** What alarms are made of is there from the start: Prometheus sees no increase in a series whose first value is 1. */
function beginAtZero({ denials, credentials, reloads }: ReturnType<typeof counters>): void {
  for (const code of Object.keys(DENIAL_SQLSTATE)) denials.inc({ code }, 0)
  for (const kind of CREDENTIAL_KINDS) for (const event of CREDENTIAL_EVENTS) credentials.inc({ kind, event }, 0)
  for (const outcome of RELOAD_OUTCOMES) reloads.inc({ outcome }, 0)
}

function registerIssuerKeys(registry: Registry, read: LiveGauges['issuerKeys']): void {
  if (read === undefined) return
  new Gauge({
    name: 'pgusher_issuer_keys_usable',
    help: "1 while an issuer's keys are there and not too old",
    labelNames: ['issuer'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [issuer, usable] of Object.entries(read())) this.set({ issuer }, usable ? 1 : 0)
    },
  })
}

function registerGauges(registry: Registry, live: LiveGauges): void {
  const gauge = (name: string, help: string, read: (() => number) | undefined): void => {
    if (read === undefined) return
    new Gauge({
      name: `pgusher_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read())
      },
    })
  }
  const { auditAccepting } = live
  gauge('sessions', 'Sessions now', live.sessions)
  gauge('unauthenticated_connections', 'Connections that are not authenticated yet', live.unauthenticated)
  gauge('credentials', 'Minted credentials that are not taken back yet', live.credentials)
  gauge('warm_upstreams', 'Upstream connections kept for the next session of their job', live.warm)
  gauge('audit_accepting', '1 while the audit works', auditAccepting && (() => (auditAccepting() ? 1 : 0)))
  gauge('workers', 'Workers that listen', live.workers)
  registerIssuerKeys(registry, live.issuerKeys)
  if (live.auditEvents === undefined) return
  const { auditEvents } = live
  new Counter({
    name: 'pgusher_audit_events_total',
    help: 'Audit events recorded',
    registers: [registry],
    collect() {
      this.reset()
      this.inc(auditEvents())
    },
  })
}

/** Counted in a Map and told when it is asked for: of the hot path a labelled counter of prom-client takes more than all of the audit's text. */
function statementCounter(registry: Registry): (outcome: StatementOutcome, count: number) => void {
  const counts = new Map<StatementOutcome, number>()
  new Counter({
    name: 'pgusher_statements_total',
    help: 'Statements executed or refused',
    labelNames: ['outcome'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [outcome, count] of counts) this.inc({ outcome }, count)
    },
  })
  return (outcome, count) => void counts.set(outcome, (counts.get(outcome) ?? 0) + count)
}

/** Each value has the label of its process, so nothing is summed up. */
function merged(all: readonly (readonly MetricFamily[])[]): Registry {
  // prom-client would leave out what cannot be summed up, such as a process's start.
  return AggregatorRegistry.aggregate(all.map((own) => own.map((family) => ({ ...family, aggregator: 'sum' }))))
}

/** @param process a label for all of them, where there are several processes */
export function createMetrics(live: LiveGauges = {}, process?: string): Metrics {
  const registry = new Registry()
  if (process !== undefined) registry.setDefaultLabels({ worker: process })
  const count = counters(registry)
  beginAtZero(count)
  const countStatements = statementCounter(registry)
  const steps = new Histogram({
    name: 'pgusher_connect_seconds',
    help: 'Time that each step to ReadyForQuery took',
    labelNames: ['step'],
    buckets: CONNECT_BUCKETS,
    registers: [registry],
  })
  const policy = new Gauge({
    name: 'pgusher_policy_info',
    help: '1 for the policy in force',
    labelNames: ['version'],
    registers: [registry],
  })
  registerGauges(registry, live)
  collectDefaultMetrics({ register: registry })
  return {
    connection: () => count.connections.inc(),
    sessionEnded: (outcome, code) => count.sessions.inc({ outcome, code: word(code) }),
    denial: (code) => count.denials.inc({ code: word(code) }),
    statements: (outcome, number = 1) => countStatements(outcome, number),
    bytes: (direction, number) => count.bytes.inc({ direction }, number),
    connectStep: (step, seconds) => steps.observe({ step }, seconds),
    credential: (kind, event) => count.credentials.inc({ kind, event }),
    ticket: (event, number = 1) => count.tickets.inc({ event }, number),
    warmUpstream: (outcome) => count.warm.inc({ outcome }),
    auditFailure: () => count.auditFailures.inc(),
    policyVersion(version) {
      policy.reset()
      policy.set({ version }, 1)
    },
    policyReload: (outcome) => count.reloads.inc({ outcome }),
    watch: (more) => registerGauges(registry, more),
    collect: () => registry.getMetricsAsJSON(),
    async render(others = []) {
      if (others.length === 0) return registry.metrics()
      return merged([await registry.getMetricsAsJSON(), ...others]).metrics()
    },
    contentType: registry.contentType,
  }
}
