/** The job that `pgusher explain` is about: from a token, verified as `serve` does, or from claims as they are. */
import { readFile } from 'node:fs/promises'
import { reason } from '../config/read-file.ts'
import type { Config } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { checkAudience, checkPresetRules } from '../identity/check-claims.ts'
import type { Principal } from '../identity/principal.ts'
import { issuerUrl, principalFromClaims } from '../identity/principal-from-claims.ts'
import { parseStrictObject } from '../identity/strict-json.ts'
import { createVerifier } from '../identity/verifier.ts'

export interface JobSource {
  /** File with a token; white space around it is trimmed. */
  tokenFile?: string
  /** File with claims as JSON. */
  claims?: string
  /** Entry of `issuers`, for claims without `iss`. */
  issuer?: string
}

/** @throws AccessError as the verifier, or for a file that can't be read and an issuer that isn't known. */
export async function identifyJob(config: Config, options: JobSource): Promise<Principal> {
  if (options.tokenFile !== undefined) {
    const token = (await readText(options.tokenFile)).trim()
    if (token === '') {
      throw new AccessError('token_missing', `the file ${options.tokenFile} is empty, where a token is wanted`)
    }
    const verifier = createVerifier(config.issuers)
    try {
      return await verifier.verify(token)
    } finally {
      verifier.close()
    }
  }
  const claims = readClaims(await readText(options.claims ?? ''), options.claims ?? '')
  const name = issuerName(config, claims, options.issuer)
  const issuer = config.issuers[name]
  if (issuer === undefined) throw new AccessError('issuer_unknown', `no issuer is called "${name}"`)
  if (Object.hasOwn(claims, 'aud')) checkAudience(claims, issuer)
  const principal = principalFromClaims(name, issuer, claims)
  checkPresetRules(principal, issuer)
  return principal
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (thrown) {
    throw new AccessError('token_missing', `${file} cannot be read: ${reason(thrown)}`, { cause: thrown })
  }
}

function readClaims(text: string, file: string): Record<string, unknown> {
  try {
    return parseStrictObject(text)
  } catch (thrown) {
    throw new AccessError('token_malformed', `${file} does not hold the claims of a token as a JSON object`, {
      cause: thrown,
    })
  }
}

function issuerName(config: Config, claims: Readonly<Record<string, unknown>>, named: string | undefined): string {
  const names = Object.keys(config.issuers).join(', ')
  if (named !== undefined && !Object.hasOwn(config.issuers, named)) {
    throw new AccessError('issuer_unknown', `no issuer is called "${named}"; the configuration has ${names}`)
  }
  const iss = claims['iss']
  const found = Object.entries(config.issuers).find(([, issuer]) => issuerUrl(issuer) === iss)?.[0]
  if (iss !== undefined && (found === undefined || (named !== undefined && named !== found))) {
    throw new AccessError(
      'issuer_unknown',
      `the iss of these claims belongs to ${found === undefined ? 'no issuer of the configuration' : `issuer "${found}"`}`,
    )
  }
  const name = named ?? found
  if (name === undefined)
    throw new AccessError('issuer_unknown', `the claims have no iss; name their issuer by --issuer: ${names}`)
  return name
}
