/** Connections to scripted upstreams, and the errors that they end in. */
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { type ConnectOptions, connectUpstream } from '../../src/upstream/connect.ts'
import { CREDENTIAL, databaseConfig, type Peer, scriptedUpstream } from './scripted-upstream.ts'

export const connect = (port: number, change: Partial<DatabaseConfig> = {}, options: ConnectOptions = {}) =>
  connectUpstream(
    { alias: 'shop', config: databaseConfig(port, change), dbname: 'shop' },
    CREDENTIAL,
    new Map(),
    options,
  )

/** The error of a connection to an upstream that does this; by then the upstream sees its socket closed. */
export async function refusal(
  script: (peer: Peer) => Promise<void>,
  change: Partial<DatabaseConfig> = {},
  options: ConnectOptions = {},
): Promise<AccessError> {
  const upstream = await scriptedUpstream(script)
  const thrown = await connect(upstream.port, change, options).catch((thrown: unknown) => thrown)
  await upstream.allClosed()
  if (!(thrown instanceof AccessError)) throw new Error('no AccessError was thrown', { cause: thrown })
  return thrown
}

/** What an operator reads. */
export const causes = (error: Error): string => {
  const inner = error.cause instanceof Error ? ` < ${causes(error.cause)}` : ''
  return error.message + inner
}
