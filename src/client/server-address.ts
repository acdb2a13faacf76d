/** Where pgusher is, as `--server` says it. */
import type { Peer } from '../upstream/failure.ts'

/** pgusher's own port in its documents and examples. */
const DEFAULT_PORT = 6432

export interface ServerAddress {
  /** A name or an address, IPv6 without brackets. */
  host: string
  port: number
}

/** `pgusher.acme.example`, `10.0.0.7:6432`, `[::1]:6432`. @returns undefined for anything else */
export function parseServerAddress(text: string): ServerAddress | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text)
  if (match === null) return undefined
  const port = match[3] === undefined ? DEFAULT_PORT : Number(match[3])
  if (port < 1 || port > 65_535) return undefined
  return { host: match[1] ?? match[2] ?? '', port }
}

/** `host:port` as URLs have it. */
export function hostAndPort({ host, port }: ServerAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** pgusher as the peer of a connection: verified in full, by `caFile` or the system's CAs. */
export function serverPeer(server: ServerAddress, caFile: string | undefined): Peer {
  return {
    alias: hostAndPort(server),
    config: { ...server, tls: { mode: 'verify-full', ...(caFile === undefined ? {} : { ca: caFile }) } },
    caSetting: '--ca',
    hint: 'This is between the job and pgusher: compare --server and --ca with what the operator of pgusher says.',
  }
}
