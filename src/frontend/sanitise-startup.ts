/**
 * What of a client's startup parameters goes upstream. The upstream's StartupMessage is built anew from this; the client's
 * bytes are never forwarded. Ordinary settings pass and PostgreSQL checks them; what names an identity does not.
 */
import { AccessError } from '../errors.ts'
import { isSettingName, parseOptions } from '../wire/startup-options.ts'

export interface UpstreamParameters {
  /** Settings of the client by name, `application_name` aside. Names that differ in case only do not occur. */
  settings: Map<string, string>
  /** The client's own, for the session to put its own words in front of. */
  applicationName: string | undefined
  /** The value for upstream; undefined for an ordinary session. */
  replication: 'true' | 'database' | undefined
  /** The client asks for OAUTHBEARER in place of a password, by `options=-cpgusher.auth=oauthbearer`. */
  oauthbearer: boolean
}

/** Parameters of a StartupMessage that are not settings; as settings (`-c user=…`) they would become something else upstream. */
const STARTUP_NAMES = new Set(['user', 'database', 'options', 'replication'])
/** Who the session is. pgusher sends `role` itself. */
const IDENTITY_SETTINGS = new Set([
  'role',
  'session_authorization',
  'is_superuser',
  'authenticated_user',
  'system_user',
])

/**
 * @param parameters of the StartupMessage, with exact names
 * @throws AccessError `role_not_allowed` for `role`, `session_authorization` and the like, `statement_not_allowed` for
 *   replication that is not granted, `protocol_violation` for what cannot be read
 */
export function sanitiseStartup(
  parameters: ReadonlyMap<string, string>,
  options: { replicationAllowed: boolean },
): UpstreamParameters {
  const result: UpstreamParameters = {
    settings: new Map(),
    applicationName: undefined,
    replication: replicationMode(parameters.get('replication')),
    oauthbearer: false,
  }
  if (result.replication !== undefined && !options.replicationAllowed) {
    throw new AccessError('statement_not_allowed', 'replication connections are not granted', {
      hint: 'Connect without replication=, or ask for a rule with "replication: true".',
    })
  }
  for (const [name, value] of clientSettings(parameters)) {
    refuseReserved(name)
    if (name === 'application_name') result.applicationName = value
    else if (name.startsWith('pgusher.')) result.oauthbearer = asksForOAuthBearer(name, value)
    else result.settings.set(name, value)
  }
  return result
}

/** Settings by lower-case name; those of `options` first, so that a parameter of its own wins, as in PostgreSQL. */
function clientSettings(parameters: ReadonlyMap<string, string>): Map<string, string> {
  const settings = parseOptions(parameters.get('options') ?? '')
  const own = new Set<string>()
  for (const [name, value] of parameters) {
    if (STARTUP_NAMES.has(name)) continue
    if (!isSettingName(name)) {
      throw new AccessError(
        'protocol_violation',
        `startup parameter ${JSON.stringify(name.slice(0, 63))} is not the name of a setting`,
      )
    }
    const lower = name.toLowerCase()
    if (own.has(lower))
      throw new AccessError('protocol_violation', `StartupMessage names the parameter "${lower}" twice`)
    own.add(lower)
    settings.set(lower, value)
  }
  return settings
}

function refuseReserved(name: string): void {
  if (IDENTITY_SETTINGS.has(name)) {
    throw new AccessError(
      'role_not_allowed',
      `startup parameter "${name}" is refused: pgusher sets the role of a session`,
      {
        hint: 'Ask for a role by its name as the user of the connection string.',
      },
    )
  }
  if (STARTUP_NAMES.has(name) || name.startsWith('_pq_.')) {
    throw new AccessError('protocol_violation', `startup parameter "${name}" is refused: it is not a setting`)
  }
}

function asksForOAuthBearer(name: string, value: string): boolean {
  if (name !== 'pgusher.auth' || !['oauthbearer', 'password'].includes(value.toLowerCase())) {
    throw new AccessError(
      'protocol_violation',
      `startup parameter "${name}" is refused: pgusher knows "pgusher.auth" only, as oauthbearer or password`,
    )
  }
  return value.toLowerCase() === 'oauthbearer'
}

/** `database`, or a boolean by PostgreSQL's parse_bool: any case, and any unambiguous beginning of a word. */
function replicationMode(value: string | undefined): UpstreamParameters['replication'] {
  if (value === undefined) return undefined
  if (value === 'database') return 'database'
  const text = value.toLowerCase()
  const begins = (word: string, least: number) => text.length >= least && word.startsWith(text)
  if (text === '1' || begins('true', 1) || begins('yes', 1) || begins('on', 2)) return 'true'
  if (text === '0' || begins('false', 1) || begins('no', 1) || begins('off', 2)) return undefined
  throw new AccessError('protocol_violation', 'invalid value for parameter "replication"', {
    sqlstate: '22023',
    hint: 'Valid values are: false, 0, true, 1, database.',
  })
}
