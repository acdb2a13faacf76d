/** What `serve` does with a sample: the real loader, verifier and policy. */
import { stringify } from 'yaml'
import type { Diagnostic } from '../../../src/config/diagnostics.ts'
import { formatDiagnostics } from '../../../src/config/diagnostics.ts'
import type { IssuerConfig, PresetName } from '../../../src/config/schema.ts'
import { AccessError } from '../../../src/errors.ts'
import type { Preset } from '../../../src/identity/preset.ts'
import { PRESETS } from '../../../src/identity/presets/index.ts'
import type { Principal } from '../../../src/identity/principal.ts'
import { principalFromRecord } from '../../../src/identity/principal-from-claims.ts'
import { createVerifier } from '../../../src/identity/verifier.ts'
import { evaluate } from '../../../src/policy/evaluate.ts'
import { loadPolicy, type PolicyResult } from '../../../src/policy/load.ts'
import { writeConfig } from '../../config/write-config.ts'
import { signingKey } from '../../support/tokens.ts'
import type { Sample } from './sample.ts'

export type Claims = Readonly<Record<string, unknown>>

const key = signingKey('k1', 'RS256')

export function presetOf({ issuer }: Sample): Preset {
  return PRESETS[issuer.preset as PresetName]
}

/** A minute after the token was issued, milliseconds. */
function timeOf({ claims }: Sample): number {
  return (Number(claims['iat']) + 60) * 1000
}

async function load(sample: Sample): Promise<PolicyResult> {
  const config = {
    version: 1,
    listen: { address: '127.0.0.1:6432', plaintext: 'allow' },
    audit: { stdout: true },
    issuers: { ci: { ...sample.issuer, jwks_file: 'jwks.json' } },
    databases: {
      shop: { host: 'pg1.internal', credentials: { kind: 'ephemeral-role', admin: { user: 'admin', password: 'x' } } },
    },
    rules: [{ name: 'migrate', issuer: 'ci', match: sample.match, allow: { database: 'shop', role: 'migrator' } }],
  }
  const file = await writeConfig(stringify(config), { 'jwks.json': JSON.stringify({ keys: [key.jwk] }) })
  return loadPolicy(file, {}, { now: timeOf(sample) })
}

/** `error: message | hint` for each thing that the loader says of the issuer and the rule. */
export async function told(sample: Sample): Promise<string[]> {
  const result = await load(sample)
  const line = ({ level, message, hint }: Diagnostic) => `${level}: ${message}${hint === undefined ? '' : ` | ${hint}`}`
  return (result.ok ? result.warnings : result.diagnostics).map(line)
}

/** The principal that the sample's rule lets in, or the refusal of the verifier or of the policy. */
export async function gate(sample: Sample): Promise<(claims: Claims) => Promise<Principal | AccessError>> {
  const result = await load(sample)
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  const issuers: Record<string, IssuerConfig> = result.loaded.config.issuers
  const verifier = createVerifier(issuers, { now: () => timeOf(sample) })
  const decide = (principal: Principal): Principal | AccessError => {
    const decision = evaluate(result.policy, principal, { database: 'shop', user: 'migrator' }, timeOf(sample))
    return decision.allowed ? principal : decision.error
  }
  return async (claims) => {
    try {
      const principal = await verifier.verify(await key.sign(claims))
      const { subject, auditClaims } = principal
      const config = issuers['ci']
      if (config === undefined) throw new TypeError('no issuer ci')
      const decided = decide(principal)
      // `pgusher why` decides again by what is on record: it must come to the same where the preset lists the claims.
      const again =
        presetOf(sample).openClaims === true
          ? decided
          : decide(principalFromRecord('ci', config, { subject, claims: auditClaims }))
      if (again instanceof AccessError !== decided instanceof AccessError)
        throw new Error('the record decides otherwise')
      return decided
    } catch (error) {
      if (error instanceof AccessError) return error
      throw error
    }
  }
}
