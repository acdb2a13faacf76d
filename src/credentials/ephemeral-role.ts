/** The default minter: one PostgreSQL role for one job and grant, dropped after the job. PostgreSQL 14 and later. */
import type { EphemeralRoleConfig } from '../config/schema.ts'
import { type MintTarget, openAdmin } from './admin-connection.ts'
import { checkAdmin } from './check-admin.ts'
import { adminFailure } from './failure.ts'
import { type MintStep, mintRole } from './mint-role.ts'
import type { Minter } from './minter.ts'
import { applicationName, bootTag, loginName } from './naming.ts'
import { removeRole } from './remove-role.ts'
import { createSweeper } from './sweep.ts'
import { createTicketCarriers } from './ticket-carriers.ts'

export interface MintingInstance {
  /** Replica's name, for people. */
  name: string
  /** Differs for each start of each process. */
  boot: string
}

export interface EphemeralRoleOptions {
  now?: () => number
  /** Called between the steps of minting; for tests that die there. */
  onStep?: (step: MintStep, login: string) => Promise<void> | void
}

/**
 * Made or being made, and not to be taken back yet: what the sweeper leaves alone. By boot and not by minter, because two
 * entries can lie on one server, and a reload replaces the minter of roles that live on.
 */
const inUseByBoot = new Map<string, Set<string>>()

function inUseOf(boot: string): Set<string> {
  const inUse = inUseByBoot.get(boot) ?? new Set()
  inUseByBoot.set(boot, inUse)
  return inUse
}

export function createEphemeralRoleMinter(
  target: MintTarget,
  credentials: EphemeralRoleConfig,
  instance: MintingInstance,
  options: EphemeralRoleOptions = {},
): Minter {
  const boot = bootTag(instance.boot)
  const admin = openAdmin(target, credentials, applicationName(boot))
  const inUse = inUseOf(boot)
  const maker = { instance: instance.name, boot, onStep: options.onStep }
  const sweep = createSweeper({
    admin,
    boot,
    inUse: (login) => inUse.has(login),
    remove: (client, login) => removeRole(admin, client, login),
    now: options.now ?? Date.now,
  })
  return {
    linger: credentials.linger,
    carriers: createTicketCarriers(admin),
    async mint(principal, grant, expiresAt) {
      const login = loginName(credentials.prefix, principal.jobKey)
      inUse.add(login)
      try {
        return await mintRole(admin, maker, login, { principal, grant, expiresAt })
      } catch (error) {
        // The connection may have broken while COMMIT was on its way; the sweeper then finds the role and no user of it.
        inUse.delete(login)
        throw adminFailure(target.alias, `no login could be made for role "${grant.role}"`, error)
      }
    },
    async revoke(credential) {
      inUse.delete(credential.login)
      await admin.cleaning.run((client) => removeRole(admin, client, credential.login))
    },
    sweep,
    check: (roles) => checkAdmin(admin, roles),
    close: () => admin.close(),
  }
}
