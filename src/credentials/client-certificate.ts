/** pgusher as a small CA: a certificate of minutes for CN = role. Nothing is written to the catalog, so it works on standbys. */
import type pg from 'pg'
import type { ClientCertificateConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { connectAs, type MintTarget } from './admin-connection.ts'
import { issueClientCertificate } from './certificate-authority.ts'
import { transportFindings } from './check-transport.ts'
import { adminFailure, messageOf, sqlstateOf } from './failure.ts'
import { inspectRole, requireSafeRole } from './group-role.ts'
import type { Finding, Minter } from './minter.ts'

/** How long a role that was found harmless stays so. */
const CHECKED_FOR = 60_000

type WithConnection = <T>(role: string, work: (client: pg.Client) => Promise<T>) => Promise<T>

/** Each role that a job asks for is looked at over a connection by such a certificate; a herd looks once. */
function createRoleGuard(alias: string, connected: WithConnection, now: () => number): (role: string) => Promise<void> {
  const checked = new Map<string, { until: number; safe: Promise<void> }>()
  return (role) => {
    const known = checked.get(role)
    if (known !== undefined && known.until > now()) return known.safe
    const safe = connected(role, async (client) => void (await requireSafeRole(client, alias, role, { login: true })))
    checked.set(role, { until: now() + CHECKED_FOR, safe })
    safe.catch(() => checked.delete(role))
    return safe
  }
}

async function checkRole({ alias, config }: MintTarget, connected: WithConnection, role: string): Promise<Finding[]> {
  const subject = `database ${alias}, role ${role}`
  try {
    return await connected(role, async (client) => {
      const report = await inspectRole(client, role, { login: true })
      const say = (level: Finding['level'], message: string): Finding => ({ level, subject, message })
      return [
        ...(await transportFindings(client, config, subject)),
        ...(report?.dangers ?? []).map((danger) => say('error', `role "${role}" is not given to jobs: ${danger}`)),
        ...(report?.cautions ?? []).map((caution) => say('warning', `role "${role}": ${caution}`)),
      ]
    })
  } catch (error) {
    const sqlstate = sqlstateOf(error)
    const reason = error instanceof AccessError && error.cause !== undefined ? error.cause : error
    const message = `cannot log in with a certificate: ${messageOf(reason)}${sqlstate === undefined ? '' : ` (${sqlstate})`}`
    const hint =
      'ssl_ca_file must hold the certificate of credentials.ca, and pg_hba.conf a hostssl line with the method cert for this role'
    return [{ level: 'error', subject, message, hint }]
  }
}

export function createClientCertificateMinter(
  target: MintTarget,
  credentials: ClientCertificateConfig,
  now: () => number = Date.now,
): Minter {
  const { alias, config, dbname } = target
  const issue = (role: string, validUntil: number) =>
    issueClientCertificate(credentials.ca, role, now(), validUntil).catch((cause: unknown) => {
      const hint = 'The operator finds the reason in the log of pgusher.'
      throw new AccessError('credential_failed', `the CA of database "${alias}" cannot sign`, { hint, cause })
    })
  const connected: WithConnection = async (role, work) => {
    const certificate = await issue(role, now() + credentials.life)
    const client = await connectAs(config, { user: role, certificate }, dbname, 'pgusher')
    try {
      return await work(client)
    } finally {
      await client.end().catch(() => {})
    }
  }
  const requireSafe = createRoleGuard(alias, connected, now)

  return {
    linger: credentials.linger,
    async mint(_principal, grant, expiresAt) {
      if (grant.replication) {
        throw new AccessError(
          'credential_failed',
          `replication on database "${alias}" needs credentials of kind ephemeral-role`,
        )
      }
      try {
        await requireSafe(grant.role)
        const validUntil = Math.min(expiresAt, now() + credentials.life)
        const pem = await issue(grant.role, validUntil)
        const secret = { type: 'certificate' as const, ...pem }
        return { kind: 'client-certificate', login: grant.role, assumeRole: undefined, secret, validUntil }
      } catch (error) {
        throw adminFailure(alias, `no certificate could be made for role "${grant.role}"`, error)
      }
    },
    // There is nothing in the catalog. A certificate's end does not end a session: pgusher does.
    async revoke() {},
    async sweep() {
      return { removed: [], failed: [] }
    },
    async check(roles) {
      return (await Promise.all(roles.map((role) => checkRole(target, connected, role)))).flat()
    },
    async close() {},
  }
}
