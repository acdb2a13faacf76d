/** Certificate and key of the TLS port, held against each other, so that what is wrong is said in our words and not in OpenSSL's. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Diagnostic, diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import type { Config } from '../config/schema.ts'

export type ListenerTls =
  /** Both are undefined where the listener has no TLS. */
  | {
      ok: true
      certificate: ListenerCertificate | undefined
      secureContext: SecureContext | undefined
      warnings: Diagnostic[]
    }
  | { ok: false; diagnostic: Diagnostic }

/** As PEM. */
export interface ListenerCertificate {
  cert: Buffer
  key: Buffer
}

const ORDER = "the server's certificate stands first in its file, those of CAs behind it; was one file renewed alone?"

/** Never rejects. */
export async function loadListenerTls({ config, locate }: LoadedConfig): Promise<ListenerTls> {
  const { tls } = config.listen
  if (tls === undefined) return { ok: true, certificate: undefined, secureContext: undefined, warnings: [] }
  const about = (level: Diagnostic['level'], key: 'cert' | 'key', message: string, hint?: string): Diagnostic =>
    diagnostic(level, locate(['listen', 'tls', key]), `listen.tls.${key}: ${message}`, hint)
  try {
    const [cert, key] = await Promise.all([readFile(tls.cert), readFile(tls.key)])
    const problem = held(cert, key)
    if (problem === 'cert') {
      return { ok: false, diagnostic: about('error', 'cert', `${tls.cert} holds no certificate in PEM`) }
    }
    if (problem === 'key') {
      const message = `${tls.key} holds no private key in PEM, or one that needs a passphrase`
      return { ok: false, diagnostic: about('error', 'key', message) }
    }
    if (problem === 'both') {
      const message = `the key in ${tls.key} is not the one of the certificate in ${tls.cert}`
      return { ok: false, diagnostic: about('error', 'key', message, ORDER) }
    }
    const certificate = { cert, key }
    const secureContext = listenerContext(certificate, config)
    const { validToDate } = new X509Certificate(cert)
    const over = validToDate.getTime() < Date.now()
    const message = `the certificate is over since ${validToDate.toISOString()}; jobs that verify it refuse it`
    return { ok: true, certificate, secureContext, warnings: over ? [about('warning', 'cert', message)] : [] }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { ok: false, diagnostic: about('error', 'cert', `the certificate and key cannot be used: ${why}`) }
  }
}

/** @throws Error of OpenSSL */
export function listenerContext({ cert, key }: ListenerCertificate, { listen }: Pick<Config, 'listen'>): SecureContext {
  return createSecureContext({ cert, key, minVersion: `TLSv${listen.tls?.min_version ?? '1.2'}` })
}

/** Which of them is wrong; `both` where they do not belong together. */
function held(cert: Buffer, key: Buffer): 'cert' | 'key' | 'both' | undefined {
  const leaf = orUndefined(() => new X509Certificate(cert))
  if (leaf === undefined) return 'cert'
  const privateKey = orUndefined(() => createPrivateKey(key))
  if (privateKey === undefined) return 'key'
  return leaf.checkPrivateKey(privateKey) ? undefined : 'both'
}

function orUndefined<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}
