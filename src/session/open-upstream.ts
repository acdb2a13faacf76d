/** The upstream connection of a session: one that is warm where the database entry says so and one fits, else a new one. */
import type { MintedCredential } from '../credentials/minter.ts'
import type { UpstreamParameters } from '../frontend/sanitise-startup.ts'
import type { Grant } from '../policy/types.ts'
import { cancelUpstream } from '../upstream/cancel.ts'
import { connectUpstream, type UpstreamConnection, type UpstreamTarget } from '../upstream/connect.ts'
import { createQuietUpstream, type QuietUpstream } from './quiet-upstream.ts'
import { baselineQuery } from './upstream-state.ts'
import type { WarmConnection, WarmUpstreams } from './warm-upstreams.ts'

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
  /** Settings of the StartupMessage; `pgusher.job` among them tells the session only where it is asked to. */
  settings(withSession: boolean): Map<string, string>
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
  const { target, credential, grant, asked, signal } = options
  const { replication } = asked
  if (target.config.warm !== undefined && mayBeWarm(grant, asked)) {
    const opened = (await reuse(options)) ?? (await openToKeep(options))
    if (opened !== undefined && !signal.aborted) return opened
    opened?.close()
  }
  const how = replication === undefined ? { signal } : { signal, replication }
  const connection = await connectUpstream(target, credential, options.settings(true), how)
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

/** RESET ALL comes back to the StartupMessage, so what is the same in it for all sessions of the job is without the session. */
function keyOf({ target, credential, settings }: OpenUpstreamOptions) {
  return { target, credential, startup: JSON.stringify([...settings(false)]) }
}

const jobOf = ({ settings }: OpenUpstreamOptions): string => settings(true).get('pgusher.job') ?? ''

async function reuse(options: OpenUpstreamOptions): Promise<SessionUpstream | undefined> {
  const found = await options.warm.take(keyOf(options), jobOf(options))
  if (found === undefined) return undefined
  const { warm, quiet } = found
  return sessionUpstream(options, withRestOf(warm.connection, quiet), true, warm)
}

/** Undefined where it cannot be told what the connection is like. */
async function openToKeep(options: OpenUpstreamOptions): Promise<SessionUpstream | undefined> {
  const { target, credential, signal } = options
  const { generation } = options.warm
  const connection = await connectUpstream(target, credential, options.settings(false), { signal })
  const quiet = createQuietUpstream(connection)
  const rows = await quiet.run(baselineQuery(jobOf(options)), BASELINE_TIME)
  if (rows === undefined) return undefined
  const [standing, state] = rows
  const kept = withRestOf(connection, quiet)
  if (rows.length !== 3 || standing === undefined || state === undefined) return sessionUpstream(options, kept, false)
  return sessionUpstream(options, kept, false, { ...keyOf(options), connection, standing, state, uses: 1, generation })
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
  const { target, grant } = options
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
        options.warm.park(warm, { ...limits, keep: Math.min(limits.keep, grant.maxConnections) })
        return true
      }),
    async cancel() {
      if (!ours) return
      cancelled = true
      await cancelUpstream(target, connection.backendKey, options.cancelTimeout).catch(options.onCancelFailure)
    },
    close() {
      if (ours) connection.socket.destroy()
    },
  }
}
