/** The listening socket of either kind. */
import { once } from 'node:events'
import { lstat, unlink } from 'node:fs/promises'
import { connect, type ListenOptions, type Server } from 'node:net'
import type { ListenAddress } from '../config/scalars.ts'

export interface BindOptions {
  /** A Unix socket that other users cannot open. */
  ownerOnly?: boolean
  /** Other processes of this user may listen on the same port. */
  reusePort?: boolean
}

/**
 * @returns the address with the port that was taken where 0 was asked for. @throws the system's error, e.g. EADDRINUSE
 */
export async function bindListener(
  server: Server,
  address: ListenAddress,
  { ownerOnly = false, reusePort = false }: BindOptions = {},
): Promise<ListenAddress> {
  if (address.kind === 'unix') await removeStaleSocket(address.path)
  // A herd of jobs that starts at once waits in the kernel's queue and not in connection resets.
  const backlog = 4096
  const options =
    address.kind === 'unix'
      ? { path: address.path, backlog }
      : { host: address.host, port: address.port, backlog, reusePort }
  if (ownerOnly) listenAsOwner(server, options)
  else server.listen(options)
  await once(server, 'listening')
  const bound = server.address()
  if (address.kind === 'unix' || bound === null || typeof bound === 'string') return address
  return { ...address, port: bound.port }
}

/** The socket is made within `listen`; with a mode that came later somebody could open it before. */
function listenAsOwner(server: Server, options: ListenOptions): void {
  const before = process.umask(0o177)
  try {
    server.listen(options)
  } finally {
    process.umask(before)
  }
}

/** A killed process leaves its socket behind, and listening on it again fails. One that still answers is somebody else's. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (found === undefined || !found.isSocket()) return
  const probe = connect(path)
  const alive = await new Promise<boolean>((resolve) => {
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false))
  })
  probe.destroy()
  if (!alive) await unlink(path)
}
