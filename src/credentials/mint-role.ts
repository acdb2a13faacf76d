/** Makes one login role for one job and grant. */
import { randomBytes } from 'node:crypto'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import { deriveScramKeys, formatVerifier } from '../sasl/scram.ts'
import type { Admin } from './admin-connection.ts'
import { requireSafeRole } from './group-role.ts'
import type { MintedCredential } from './minter.ts'
import { commentFor, formatComment } from './role-comment.ts'
import { createLoginStatements } from './sql.ts'
import { inTransaction, retryCollisions } from './transaction.ts'

/** Places at which a process can die; a test dies at each. */
export type MintStep = 'begun' | 'checked' | 'created' | 'committed'

export interface RoleMaker {
  instance: string
  /** `bootTag` */
  boot: string
  onStep?: ((step: MintStep, login: string) => Promise<void> | void) | undefined
}

/**
 * A password of 256 random bits has nothing to guess, so one iteration protects its verifier as well as 4096 would, and
 * CREATE ROLE and each login cost a fraction (RFC 5802's count is there to slow down guesses at passwords of people).
 */
const ITERATIONS = 1

function makeSecret() {
  const password = randomBytes(32).toString('base64url')
  const salt = randomBytes(16)
  const keys = deriveScramKeys(password, salt, ITERATIONS)
  const verifier = formatVerifier({
    iterations: ITERATIONS,
    salt,
    storedKey: keys.storedKey,
    serverKey: keys.serverKey,
  })
  const { clientKey, serverKey } = keys
  return { verifier, secret: { type: 'scram' as const, password, clientKey, serverKey, salt, iterations: ITERATIONS } }
}

/** Sessions are counted exactly before a login is handed out; this only bounds what a leaked password is good for. */
function connectionLimit(maxConnections: number): number {
  // A backend that was told to end still counts for a moment, and a job that reconnects at once would meet its own ghosts.
  return maxConnections * 2 + 2
}

/**
 * CREATE ROLE, membership and COMMENT in one transaction, after a look at the group role in the same one.
 * @throws AccessError for a role that may not be given away; the errors of PostgreSQL as they are.
 */
export async function mintRole(
  admin: Admin,
  maker: RoleMaker,
  login: string,
  job: { principal: Principal; grant: Grant; expiresAt: number },
): Promise<MintedCredential> {
  const { principal, grant, expiresAt } = job
  const { verifier, secret } = makeSecret()
  const comment = formatComment(commentFor(maker, principal, grant, expiresAt))
  await retryCollisions(() =>
    admin.minting.run(async (client) => {
      await inTransaction(client, async () => {
        await maker.onStep?.('begun', login)
        const { serverVersion } = await requireSafeRole(client, admin.target.alias, grant.role, { login: false })
        await maker.onStep?.('checked', login)
        const role = {
          login,
          group: grant.role,
          verifier,
          validUntil: expiresAt,
          connectionLimit: connectionLimit(grant.maxConnections),
          replication: grant.replication,
          comment,
        }
        await client.query(createLoginStatements(role, serverVersion).join('; '))
        await maker.onStep?.('created', login)
      })
      await maker.onStep?.('committed', login)
    }),
  )
  return { kind: 'ephemeral-role', login, assumeRole: grant.role, secret, validUntil: expiresAt }
}
