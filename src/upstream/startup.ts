/** The StartupMessage toward the upstream, protocol 3.0, made from nothing but the given map. */
import { AccessError } from '../errors.ts'
import { startupMessage as encodeStartup } from '../wire/frontend.ts'

/** MAX_STARTUP_PACKET_LENGTH of PostgreSQL's pqcomm.h: a longer one is refused there without a reason. */
const MAX_STARTUP = 10_000

/** Set by the login itself; a second `user` would win in PostgreSQL (tried). */
const RESERVED = new Set(['user', 'database', 'replication'])

export interface Startup {
  user: string
  database: string
  replication?: string | undefined
  /** All others. */
  parameters: ReadonlyMap<string, string>
}

/**
 * @throws AccessError `protocol_violation` when it is too long, which the client's own parameters can cause; `internal_error`
 *   for a reserved or empty name or a NUL, which the caller must have refused before.
 */
export function startupMessage(startup: Startup): Buffer {
  const parameters = new Map([
    ['user', startup.user],
    ['database', startup.database],
  ])
  if (startup.replication !== undefined) parameters.set('replication', startup.replication)
  for (const [name, value] of startup.parameters) {
    if (name === '' || RESERVED.has(name)) {
      throw new AccessError('internal_error', 'a startup parameter that pgusher sets itself was given twice')
    }
    parameters.set(name, value)
  }
  if ([...parameters].flat().some((text) => text.includes('\0'))) {
    throw new AccessError('internal_error', 'a startup parameter with a NUL inside reached the upstream connection')
  }
  const packet = encodeStartup(parameters)
  if (packet.length > MAX_STARTUP) {
    const text = `the startup parameters take ${packet.length} bytes, and PostgreSQL reads at most ${MAX_STARTUP}`
    throw new AccessError('protocol_violation', text, { hint: 'Shorten `options` and `application_name`.' })
  }
  return packet
}
