/** Everything that comes from the configuration, made anew on each reload and swapped in whole. */
import type { Diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { createVerifier, type Verifier, type VerifierLog } from '../identity/verifier.ts'
import { buildPolicy, type PolicySource } from '../policy/compile.ts'
import { loadPolicy } from '../policy/load.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'
import { type ListenerCertificate, listenerContext, loadListenerTls } from './listener-tls.ts'
import type { Snapshot } from './proxy-context.ts'

/** All that a snapshot is made from, as plain data: another process can make the same from it. It has secrets in it. */
export interface SnapshotSource extends PolicySource {
  certificate: ListenerCertificate | undefined
}

export interface Built {
  ok: true
  snapshot: Snapshot
  source: SnapshotSource
  warnings: Diagnostic[]
  locate: LoadedConfig['locate']
}

export type SnapshotResult = Built | { ok: false; diagnostics: Diagnostic[] }

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
  const { config, version, ruleSources, locate } = loaded
  const listenerTls = await loadListenerTls(loaded)
  if (!listenerTls.ok) return { ok: false, diagnostics: [listenerTls.diagnostic] }
  const { certificate, secureContext } = listenerTls
  warnings.push(...listenerTls.warnings)
  const snapshot = snapshotOf({ config, policy, secureContext }, log, previous)
  return { ok: true, snapshot, source: { config, version, ruleSources, certificate }, warnings, locate }
}

/** Nothing of it is checked again. @throws Error of OpenSSL for a certificate that was never checked */
export function rebuildSnapshot(source: SnapshotSource, log: VerifierLog, previous?: Verifier): Snapshot {
  const { config, certificate } = source
  const secureContext = certificate && listenerContext(certificate, config)
  return snapshotOf({ config, policy: buildPolicy(source), secureContext }, log, previous)
}

function snapshotOf(
  parts: Pick<Snapshot, 'config' | 'policy' | 'secureContext'>,
  log: VerifierLog,
  previous: Verifier | undefined,
): Snapshot {
  const { issuers, databases } = parts.config
  const verifier = createVerifier(issuers, previous === undefined ? { log } : { log, previous })
  const targets = new Map<string, UpstreamTarget & { dbname: string }>()
  for (const [alias, database] of Object.entries(databases)) {
    targets.set(alias, { alias, config: database, dbname: database.dbname ?? alias })
  }
  const [only, ...others] = Object.values(issuers)
  const url = only === undefined || others.length > 0 ? undefined : issuerUrl(only)
  const challenge = url === undefined ? undefined : { issuerUrl: url, scope: '' }
  return { ...parts, verifier, targets, challenge }
}
