/** The issuers of the configuration with their keys, found by the `iss` of a token. */
import { quote } from '../config/quote.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { createIssuerKeys, type IssuerKeys, LOCAL, REMOTE } from './issuer-keys.ts'
import { keySource } from './key-source.ts'
import { PRESETS } from './presets/index.ts'
import { issuerUrl } from './principal-from-claims.ts'

export interface ConfiguredIssuer {
  name: string
  config: IssuerConfig
  algorithms: readonly string[]
  keys: IssuerKeys
}

/** Never gets a token. */
export type VerifierLog = (level: 'info' | 'warn', message: string, details: Record<string, unknown>) => void

export interface IssuerSet {
  /** By `iss`, byte for byte. */
  byUrl: ReadonlyMap<string, ConfiguredIssuer>
  /** By what the keys depend on: after a reload the same source keeps its keys. */
  keySources: ReadonlyMap<string, IssuerKeys>
}

/** @throws Error when an issuer has no URL, or two have the same: `iss` alone must tell which rules a token falls under. */
export function configuredIssuers(
  configs: Readonly<Record<string, IssuerConfig>>,
  options: { now: () => number; log: VerifierLog; previous: ReadonlyMap<string, IssuerKeys> | undefined },
): IssuerSet {
  const names = new Map<string, string>()
  for (const [name, config] of Object.entries(configs)) {
    const url = issuerUrl(config)
    if (url === undefined) throw new Error(`issuer ${quote(name)} has no url`)
    const other = names.get(url)
    if (other !== undefined) throw new Error(`issuers ${quote(other)} and ${quote(name)} have the same url`)
    names.set(url, name)
  }
  const byUrl = new Map<string, ConfiguredIssuer>()
  const keySources = new Map<string, IssuerKeys>()
  for (const [url, name] of names) {
    const config = configs[name]
    if (config === undefined) continue
    const algorithms = config.algorithms ?? PRESETS[config.preset].algorithms
    const { jwks_url: jwksUrl, jwks_file: jwksFile, ca } = config
    const source = { url, jwksUrl, jwksFile, ca, algorithms }
    const id = JSON.stringify([name, url, jwksUrl ?? null, jwksFile ?? null, ca ?? null, algorithms])
    const shared = options.previous?.get(id)
    shared?.retain()
    const keys =
      shared ??
      createIssuerKeys({
        load: keySource(source),
        rule: jwksFile === undefined ? REMOTE : LOCAL,
        now: options.now,
        onFailure: (error) => options.log('warn', 'keys of an issuer cannot be fetched', { issuer: name, url, error }),
      })
    keySources.set(id, keys)
    byUrl.set(url, { name, config, algorithms, keys })
  }
  return { byUrl, keySources }
}
