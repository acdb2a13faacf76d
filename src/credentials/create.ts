/** The minter that an entry of `databases` asks for. */
import type { MintTarget } from './admin-connection.ts'
import { createClientCertificateMinter } from './client-certificate.ts'
import { createEphemeralRoleMinter, type MintingInstance } from './ephemeral-role.ts'
import type { Minter } from './minter.ts'

/** Connects when it is first used. */
export function createMinter(target: MintTarget, instance: MintingInstance): Minter {
  const { credentials } = target.config
  switch (credentials.kind) {
    case 'ephemeral-role':
      return createEphemeralRoleMinter(target, credentials, instance)
    case 'client-certificate':
      return createClientCertificateMinter(target, credentials)
  }
}
