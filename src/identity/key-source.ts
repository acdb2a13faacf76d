/** Where an issuer's JWK set comes from: discovery, an explicit URL or a file. */
import { readFile, stat } from 'node:fs/promises'
import { allowInsecureRequests, customFetch, discovery } from 'openid-client'
import { quote } from '../config/quote.ts'
import { allowedUrl, getLimited, MAX_BODY_BYTES, REFRESH_MS, readCa } from './key-fetch.ts'
import { type KeySet, readKeySet } from './key-set.ts'

/** The key set, or `unchanged` since the last good call. @throws Error with a reason for the log. */
export type LoadKeys = (signal: AbortSignal) => Promise<KeySet | 'unchanged'>

export interface SourceConfig {
  /** The configured `iss`. */
  url: string
  jwksUrl: string | undefined
  jwksFile: string | undefined
  ca: string | undefined
  algorithms: readonly string[]
}

export function keySource(config: SourceConfig): LoadKeys {
  if (config.jwksFile !== undefined) return fromFile(config.jwksFile, config.algorithms)
  return async (signal) => {
    const limited = AbortSignal.any([signal, deadline()])
    const ca = await readCa(config.ca)
    const url = config.jwksUrl ?? (await discover(config.url, limited, ca))
    if (!allowedUrl(url, config.url)) throw new Error(`keys are fetched over https only, not from ${url}`)
    const response = await getOk(url, limited, ca)
    return readKeySet(parse(await response.text(), url), config.algorithms)
  }
}

function deadline(): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(new Error(`no answer within ${REFRESH_MS / 1000} s`)), REFRESH_MS).unref()
  return controller.signal
}

async function getOk(url: string, signal: AbortSignal, ca: string | undefined): Promise<Response> {
  const response = await getLimited(url, { signal, ca }).catch((error: unknown) => {
    throw new Error(`${url}: ${textOf(error)}`, { cause: error })
  })
  if (response.status === 200) return response
  throw new Error(`${url} answered with status ${response.status}; redirects are not followed`)
}

/** The `jwks_uri` of the discovery document. openid-client compares issuers as URLs; `iss` is compared byte for byte here. */
async function discover(issuer: string, signal: AbortSignal, ca: string | undefined): Promise<string> {
  if (!allowedUrl(issuer, issuer)) throw new Error(`discovery needs an https URL, not ${issuer}`)
  const configuration = await discovery(new URL(issuer), 'pgusher', undefined, undefined, {
    [customFetch]: (url) => getOk(url, signal, ca),
    timeout: REFRESH_MS / 1000,
    execute: new URL(issuer).protocol === 'http:' ? [allowInsecureRequests] : [],
  }).catch((error: unknown) => {
    // openid-client says "something went wrong" of what the fetch threw, and keeps that as the cause.
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    throw new Error(`discovery of issuer ${issuer}: ${textOf(cause)}`, { cause: error })
  })
  const metadata = configuration.serverMetadata()
  if (metadata.issuer !== issuer) {
    throw new Error(`discovery of issuer ${issuer} names another issuer: ${quote(metadata.issuer)}`)
  }
  if (metadata.jwks_uri === undefined) throw new Error(`the discovery document of issuer ${issuer} has no jwks_uri`)
  return metadata.jwks_uri
}

/** The AggregateError of a name with several addresses has a code and no text. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.message === '' && 'code' in error ? String(error.code) : error.message
}

function fromFile(path: string, algorithms: readonly string[]): LoadKeys {
  let seen = ''
  return async () => {
    const { mtimeMs, ctimeMs, size, ino } = await stat(path)
    if (size > MAX_BODY_BYTES) throw new Error(`${path} has more than ${MAX_BODY_BYTES} bytes`)
    const version = `${mtimeMs}/${ctimeMs}/${size}/${ino}`
    if (version === seen) return 'unchanged'
    const set = readKeySet(parse(await readFile(path, 'utf8'), path), algorithms)
    seen = version
    return set
  }
}

function parse(text: string, from: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`${from} is not JSON`, { cause: error })
  }
}
