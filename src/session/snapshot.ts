/** Everything that comes from the configuration, made anew on each reload and swapped in whole. */
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Diagnostic, diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { createVerifier, type Verifier, type VerifierLog } from '../identity/verifier.ts'
import { loadPolicy } from '../policy/load.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'
import type { Snapshot } from './proxy-context.ts'

export type SnapshotResult =
  | { ok: true; snapshot: Snapshot; warnings: Diagnostic[] }
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
  let secureContext: SecureContext | undefined
  try {
    secureContext = await listenerContext(loaded)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return {
      ok: false,
      diagnostics: [
        diagnostic('error', loaded.locate(['listen', 'tls']), `the certificate and key cannot be used: ${why}`),
      ],
    }
  }
  const verifier = createVerifier(config.issuers, previous === undefined ? { log } : { log, previous })
  const targets = new Map<string, UpstreamTarget & { dbname: string }>()
  for (const [alias, database] of Object.entries(config.databases)) {
    targets.set(alias, { alias, config: database, dbname: database.dbname ?? alias })
  }
  const [only, ...others] = Object.values(config.issuers)
  const url = only === undefined || others.length > 0 ? undefined : issuerUrl(only)
  const challenge = url === undefined ? undefined : { issuerUrl: url, scope: '' }
  return { ok: true, snapshot: { config, policy, verifier, targets, secureContext, challenge }, warnings }
}

async function listenerContext({ config }: LoadedConfig): Promise<SecureContext | undefined> {
  const { tls } = config.listen
  if (tls === undefined) return undefined
  const [cert, key] = await Promise.all([readFile(tls.cert), readFile(tls.key)])
  return createSecureContext({ cert, key, minVersion: `TLSv${tls.min_version}` })
}
