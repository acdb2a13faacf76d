/** Certificate and key of the TLS port, held against each other, so that what is wrong is said in our words and not in OpenSSL's. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContext } from 'node:tls'
import { type Diagnostic, diagnostic } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'

export type ListenerTls =
  /** `secureContext` is undefined where the listener has no TLS. */
  { ok: true; secureContext: SecureContext | undefined; warnings: Diagnostic[] } | { ok: false; diagnostic: Diagnostic }

const ORDER = "the server's certificate stands first in its file, those of CAs behind it; was one file renewed alone?"

/** Never rejects. */
export async function loadListenerTls({ config, locate }: LoadedConfig): Promise<ListenerTls> {
  const { tls } = config.listen
  if (tls === undefined) return { ok: true, secureContext: undefined, warnings: [] }
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
    const secureContext = createSecureContext({ cert, key, minVersion: `TLSv${tls.min_version}` })
    const { validToDate } = new X509Certificate(cert)
    const over = validToDate.getTime() < Date.now()
    const message = `the certificate is over since ${validToDate.toISOString()}; jobs that verify it refuse it`
    return { ok: true, secureContext, warnings: over ? [about('warning', 'cert', message)] : [] }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { ok: false, diagnostic: about('error', 'cert', `the certificate and key cannot be used: ${why}`) }
  }
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
