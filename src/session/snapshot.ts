/** Everything that comes from the configuration, made anew on each reload and swapped in whole. */
import type { Diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { createVerifier, type Verifier, type VerifierLog } from '../identity/verifier.ts'
import { loadPolicy } from '../policy/load.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'
import { loadListenerTls } from './listener-tls.ts'
import type { Snapshot } from './proxy-context.ts'

export type SnapshotResult =
  | { ok: true; snapshot: Snapshot; warnings: Diagnostic[]; locate: LoadedConfig['locate'] }
  | { ok: false; diagnostics: Diagnostic[] }

/** @param previous whose issuer keys are kept where their source has not changed. */
export async function buildSnapshot(
  file: string,
  env: NodeJS.ProcessEnv,
  log: VerifierLog,
  previous?: Verifier,
): Promise<SnapshotResult> {
  const result = await loadPolicy(file, env)
  if (!result.ok) return result
  const { loaded, policy, warnings } = result
  const { config } = loaded
  const listenerTls = await loadListenerTls(loaded)
  if (!listenerTls.ok) return { ok: false, diagnostics: [listenerTls.diagnostic] }
  const { secureContext } = listenerTls
  warnings.push(...listenerTls.warnings)
  const verifier = createVerifier(config.issuers, previous === undefined ? { log } : { log, previous })
  const targets = new Map<string, UpstreamTarget & { dbname: string }>()
  for (const [alias, database] of Object.entries(config.databases)) {
    targets.set(alias, { alias, config: database, dbname: database.dbname ?? alias })
  }
  const [only, ...others] = Object.values(config.issuers)
  const url = only === undefined || others.length > 0 ? undefined : issuerUrl(only)
  const challenge = url === undefined ? undefined : { issuerUrl: url, scope: '' }
  const snapshot = { config, policy, verifier, targets, secureContext, challenge }
  return { ok: true, snapshot, warnings, locate: loaded.locate }
}
