/** Makes one login role for one job and grant. */
import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import { deriveScramKeys, formatVerifier } from '../sasl/scram.ts'
import type { Admin } from './admin-connection.ts'
import { sqlstateOf } from './failure.ts'
import { requireSafeRole, UNSAFE } from './group-role.ts'
import type { MintedCredential } from './minter.ts'
import { execute, prepare } from './prepared-statements.ts'
import { commentFor, formatComment } from './role-comment.ts'
import { createLoginStatements } from './sql.ts'
import { retryCollisions } from './transaction.ts'

/** Places at which a process can die; a test dies at each. */
export type MintStep = 'begun' | 'sent' | 'committed'

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
  // A backend that was told to end still counts for a moment, and a job that reconnects at once would meet its own ghosts. So does one
  // that is kept warm for a session that does not fit it.
  return maxConnections * 3 + 2
}

/**
 * A job that waits for its login need not wait for the disk too, and from PostgreSQL 16 on other jobs' mints would: the lock on the group role is
 * held until the commit is over. A crash of PostgreSQL can lose the role, which then is lost with its sessions and before anything that they did,
 * since the log is written in order; the job gets another role. Taking away waits for the disk.
 */
const WITHOUT_FLUSH = 'SET LOCAL synchronous_commit = off'

/**
 * One message, and so one transaction: a look at the group role, CREATE ROLE, COMMENT and membership.
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
  const role = {
    login,
    group: grant.role,
    verifier,
    validUntil: expiresAt,
    connectionLimit: connectionLimit(grant.maxConnections),
    replication: grant.replication,
    comment: formatComment(commentFor(maker, principal, grant, expiresAt)),
  }
  await admin.minting.run(async (client) => {
    const version = await prepare(client)
    const statements = [
      WITHOUT_FLUSH,
      execute('pgusher_safe_role', grant.role),
      ...createLoginStatements(role, version),
    ]
    await maker.onStep?.('begun', login)
    await retryCollisions(async () => {
      const made = client.query(statements.join('; '))
      made.catch(() => {})
      await maker.onStep?.('sent', login)
      await made.catch((error: unknown) => refused(client, admin, grant.role, error))
    })
    await maker.onStep?.('committed', login)
  })
  return { kind: 'ephemeral-role', login, assumeRole: grant.role, secret, validUntil: expiresAt }
}

/** @throws AccessError that says why the role is not given away, where that is it; `error` as it is otherwise */
async function refused(client: pg.Client, admin: Admin, role: string, error: unknown): Promise<never> {
  if (sqlstateOf(error) === UNSAFE) await requireSafeRole(client, admin.target.alias, role, { login: false })
  throw error
}
