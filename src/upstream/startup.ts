/** The StartupMessage toward the upstream, protocol 3.0, made from nothing but the given map. */
import { AccessError } from '../errors.ts'

const PROTOCOL_3_0 = 196_608

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
  const strings = ['user', startup.user, 'database', startup.database]
  if (startup.replication !== undefined) strings.push('replication', startup.replication)
  for (const [name, value] of startup.parameters) {
    if (name === '' || RESERVED.has(name)) {
      throw new AccessError('internal_error', 'a startup parameter that pgusher sets itself was given twice')
    }
    strings.push(name, value)
  }
  if (strings.some((text) => text.includes('\0'))) {
    throw new AccessError('internal_error', 'a startup parameter with a NUL inside reached the upstream connection')
  }
  const body = Buffer.from(`${strings.join('\0')}\0\0`)
  const head = Buffer.alloc(8)
  head.writeInt32BE(body.length + head.length, 0)
  head.writeInt32BE(PROTOCOL_3_0, 4)
  if (body.length + head.length > MAX_STARTUP) {
    const text = `the startup parameters take ${body.length + head.length} bytes, and PostgreSQL reads at most ${MAX_STARTUP}`
    throw new AccessError('protocol_violation', text, { hint: 'Shorten `options` and `application_name`.' })
  }
  return Buffer.concat([head, body])
}
