/** The upstream connection of a session: one that is warm where the database entry says so and one fits, else a new one. */
import type { MintedCredential } from '../credentials/minter.ts'
import type { UpstreamParameters } from '../frontend/sanitise-startup.ts'
import type { Grant } from '../policy/types.ts'
import { cancelUpstream } from '../upstream/cancel.ts'
import { connectUpstream, type UpstreamConnection, type UpstreamTarget } from '../upstream/connect.ts'
import { createQuietUpstream, type QuietUpstream } from './quiet-upstream.ts'
import type { UpstreamStartup } from './startup-parameters.ts'
import { baselineQuery } from './upstream-state.ts'
import type { WarmConnection, WarmKey, WarmUpstreams } from './warm-upstreams.ts'

export interface SessionUpstream {
  connection: UpstreamConnection
  /** Undefined where the database entry keeps no warm connections. */
  reused: boolean | undefined
  /** Undefined where the connection ends with its session. Else it leaves the session by this, within the turn, if it may: false if not. */
  handBack: (() => boolean) | undefined
  /** Passes a CancelRequest on, as long as the session has the connection. Never rejects. */
  cancel(): Promise<void>
  /** Ends the connection, unless it was handed back. */
  close(): void
}

export interface OpenUpstreamOptions {
  warm: WarmUpstreams
  target: UpstreamTarget & { dbname: string }
  credential: MintedCredential
  grant: Grant
  asked: UpstreamParameters
  startup: UpstreamStartup
  signal: AbortSignal
  /** Milliseconds that a CancelRequest may take. */
  cancelTimeout: number
  onCancelFailure(error: unknown): void
}

/** Settings that change nothing about the queries by which a connection is reset and compared. */
const ORDINARY = new Set([
  'client_encoding',
  'datestyle',
  'extra_float_digits',
  'intervalstyle',
  'search_path',
  'timezone',
])
/** Milliseconds for the first look at a fresh connection. */
const BASELINE_TIME = 2_000

/** @throws what `connectUpstream` throws */
export async function openUpstream(options: OpenUpstreamOptions): Promise<SessionUpstream> {
  const { target, credential, grant, asked, startup, signal } = options
  const { replication } = asked
  if (target.config.warm !== undefined && mayBeWarm(grant, asked)) {
    // RESET ALL comes back to the StartupMessage, so what is the same in it for all sessions of the job is without the session.
    const key = { target, credential, startup: JSON.stringify([...startup.parameters]) }
    const opened = (await reuse(options, key)) ?? (await openToKeep(options, key))
    if (opened !== undefined && !signal.aborted) return opened
    opened?.close()
  }
  const how = replication === undefined ? { signal } : { signal, replication }
  const parameters = new Map(startup.parameters).set('pgusher.job', startup.job)
  const connection = await connectUpstream(target, credential, parameters, how)
  return sessionUpstream(options, connection, target.config.warm === undefined ? undefined : false)
}

/** FunctionCall can call set_config without a text, and a replication connection keeps what DISCARD ALL does not know of. */
function mayBeWarm(grant: Grant, { settings, replication }: UpstreamParameters): boolean {
  return (
    !grant.functionCall &&
    !grant.replication &&
    replication === undefined &&
    [...settings.keys()].every((name) => ORDINARY.has(name))
  )
}

async function reuse(options: OpenUpstreamOptions, key: WarmKey): Promise<SessionUpstream | undefined> {
  const found = await options.warm.take(key, options.startup.job)
  if (found === undefined) return undefined
  const { warm, quiet } = found
  return sessionUpstream(options, withRestOf(warm.connection, quiet), true, warm)
}

/** Undefined where it cannot be told what the connection is like. */
async function openToKeep(options: OpenUpstreamOptions, key: WarmKey): Promise<SessionUpstream | undefined> {
  const { target, credential, startup, signal } = options
  const { generation } = options.warm
  const connection = await connectUpstream(target, credential, startup.parameters, { signal })
  const quiet = createQuietUpstream(connection)
  const rows = await quiet.run(baselineQuery(startup.job), BASELINE_TIME)
  if (rows === undefined) return undefined
  const kept = withRestOf(connection, quiet)
  const [moment, standing, , session] = rows
  if (rows.length !== 5 || moment === undefined || standing === undefined || session === undefined)
    return sessionUpstream(options, kept, false)
  return sessionUpstream(options, kept, false, { ...key, connection, moment, standing, session, uses: 1, generation })
}

/** Until the relay reads, bytes that come are kept for it. */
function withRestOf(connection: UpstreamConnection, quiet: QuietUpstream): UpstreamConnection {
  return {
    ...connection,
    get rest() {
      return quiet.release()
    },
  }
}

function sessionUpstream(
  options: OpenUpstreamOptions,
  connection: UpstreamConnection,
  reused: boolean | undefined,
  warm?: WarmConnection,
): SessionUpstream {
  // Not the options, nor the connection: the settings of both are not needed to the end.
  const { target, grant, cancelTimeout, onCancelFailure, warm: pool } = options
  const { socket, backendKey } = connection
  let ours = true
  /** A CancelRequest that is on its way would meet whoever has the connection next. */
  let cancelled = false
  const limits = target.config.warm
  return {
    connection,
    reused,
    handBack:
      warm &&
      limits &&
      (() => {
        if (!ours || cancelled) return false
        ours = false
        pool.park(warm, { ...limits, keep: Math.min(limits.keep, grant.maxConnections) })
        return true
      }),
    async cancel() {
      if (!ours) return
      cancelled = true
      await cancelUpstream(target, backendKey, cancelTimeout).catch(onCancelFailure)
    },
    close() {
      if (ours) socket.destroy()
    },
  }
}
