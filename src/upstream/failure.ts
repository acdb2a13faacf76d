/**
 * What a failing upstream connection means, in words. The client learns which database entry it is and what kind of trouble;
 * text that the upstream sent before it was authenticated goes to `cause` only (it may be anybody's: CVE-2024-10977).
 */
import type { DatabaseConfig } from '../config/schema.ts'
import { AccessError, DENIAL_SQLSTATE, type DenialCode } from '../errors.ts'

/** Where a server is, and how its certificate is checked. */
export type Endpoint = Pick<DatabaseConfig, 'host' | 'port' | 'tls'>

/** A server as texts speak of it. */
export interface Peer {
  alias: string
  config: Endpoint
  /** Where its CA is configured; `tls.ca` without it. */
  caSetting?: string
  /** In place of the hint for jobs, which says that the operator of pgusher is the one to ask. */
  hint?: string
}

export interface UpstreamTarget extends Peer {
  /** Entry of `databases`. */
  alias: string
  config: DatabaseConfig
}

/** What was going on when it failed; stands in the message of a time-out. */
export type Stage = 'connecting' | 'negotiating TLS' | 'logging in' | 'cancelling'

/** The upstream speaks no PostgreSQL, or not as pgusher accepts it. The message follows `cannot connect to "…": ` and is safe for the client. */
export class UpstreamUnusable extends Error {
  override name = 'UpstreamUnusable'
}

/** Why a login is refused, for the operator's log alone: it names pg_hba lines, methods and what the upstream said. */
export class UpstreamLoginError extends Error {
  override name = 'UpstreamLoginError'
}

const HINT =
  'This is between pgusher and the database, not in your job: its operator finds the cause in the log of pgusher.'

/** `host:port`, or the socket's path. */
export function addressText(config: Endpoint): string {
  if (config.host.startsWith('/')) return `${config.host}/.s.PGSQL.${config.port}`
  return config.host.includes(':') ? `[${config.host}]:${config.port}` : `${config.host}:${config.port}`
}

/** The name that the server's certificate must hold under verify-full. */
export function expectedName(config: Endpoint): string {
  return config.tls.server_name ?? config.host
}

export function unreachable(target: Peer, text: string, cause: unknown, sqlstate?: string): AccessError {
  return failure('upstream_unreachable', `cannot connect to "${target.alias}": ${text}`, cause, sqlstate, target.hint)
}

export function loginRefused(target: Peer, cause: unknown, sqlstate?: string): AccessError {
  const text = `cannot log in to "${target.alias}": the database did not accept the credential that pgusher made; the operator finds the reason in the log of pgusher`
  return failure('upstream_auth', text, cause, sqlstate)
}

/** True for what `loginRefused` made: PostgreSQL knows no such login, or another secret of it. What it refuses behind the login is the job's. */
export function isLoginRefused(thrown: unknown): boolean {
  return (
    thrown instanceof AccessError &&
    thrown.code === 'upstream_auth' &&
    thrown.sqlstate === DENIAL_SQLSTATE.upstream_auth
  )
}

export function failure(
  code: DenialCode,
  message: string,
  cause: unknown,
  sqlstate?: string,
  hint = HINT,
): AccessError {
  return new AccessError(code, message, { hint, cause, ...(sqlstate === undefined ? {} : { sqlstate }) })
}

const NETWORK_ERRORS: Readonly<Record<string, (config: Endpoint) => string>> = {
  ECONNREFUSED: (config) => `connection refused by ${addressText(config)}`,
  ENOTFOUND: (config) => `the host name ${config.host} does not resolve`,
  EAI_AGAIN: (config) => `the host name ${config.host} cannot be resolved now (DNS)`,
  ETIMEDOUT: (config) => `${addressText(config)} does not answer`,
  EHOSTUNREACH: (config) => `no route to ${addressText(config)}`,
  ENETUNREACH: (config) => `no route to ${addressText(config)}`,
  ECONNRESET: (config) => `${addressText(config)} closed the connection`,
  EPIPE: (config) => `${addressText(config)} closed the connection`,
  ENOENT: (config) => `there is no socket ${addressText(config)}`,
  EACCES: (config) => `pgusher may not open ${addressText(config)}`,
}

const SELF_SIGNED = 'is self-signed and is not in the configured CA file'
const OTHER_CA = 'comes from a CA that is not the configured one'
/** Where no CA is configured, which is what is to be mended. */
const WITHOUT_CA: Readonly<Record<string, string>> = {
  [SELF_SIGNED]: "is self-signed and is not among the system's CAs",
  [OTHER_CA]: "comes from a CA that is not among the system's",
}

/** OpenSSL's verification results as Node reports them in `code`. */
const CERTIFICATE_ERRORS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'has expired',
  CERT_NOT_YET_VALID: 'is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: SELF_SIGNED,
  SELF_SIGNED_CERT_IN_CHAIN: OTHER_CA,
  UNABLE_TO_GET_ISSUER_CERT: OTHER_CA,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: OTHER_CA,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: OTHER_CA,
  CERT_SIGNATURE_FAILURE: 'has a signature that is not from the configured CA',
  CERT_REVOKED: 'is revoked',
  INVALID_PURPOSE: 'is not one for TLS servers',
  INVALID_CA: 'comes from a certificate that is no CA',
}

function certificateText(code: string, { config, caSetting = '`tls.ca`' }: Peer): string | undefined {
  const of = `the certificate of ${addressText(config)}`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `${of} is not for "${expectedName(config)}"`
  const problem = CERTIFICATE_ERRORS[code]
  if (problem === undefined) return undefined
  const ca = config.tls.ca !== undefined
  const anchor = ca ? `one signed by the CA of ${caSetting}` : "one signed by a CA of the system's"
  const name = config.tls.mode === 'verify-full' ? ` for "${expectedName(config)}"` : ''
  const unknown = ca ? undefined : WITHOUT_CA[problem]
  const what = unknown === undefined ? problem : `${unknown}: name its file by ${caSetting}`
  return `${of} ${what} (expected: ${anchor}${name})`
}

/** Alerts by which a server turns down the client's certificate; with TLS 1.3 they arrive after our side of the handshake is done. */
const CLIENT_CERTIFICATE_ALERT =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)/

/** Whatever was thrown on the way up, as the error for the client. */
export function explainFailure(target: Peer, stage: Stage, thrown: unknown): AccessError {
  if (thrown instanceof AccessError) return thrown
  if (thrown instanceof UpstreamLoginError) return loginRefused(target, thrown)
  if (thrown instanceof UpstreamUnusable) return unreachable(target, thrown.message, thrown)
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
  if (CLIENT_CERTIFICATE_ALERT.test(code)) return loginRefused(target, thrown)
  const certificate = certificateText(code, target)
  if (certificate !== undefined) return unreachable(target, certificate, thrown)
  const network = NETWORK_ERRORS[code]?.(target.config)
  if (network !== undefined) {
    return unreachable(target, stage === 'connecting' ? network : `${network} while ${stage}`, thrown)
  }
  return unreachable(target, `failed while ${stage} with ${addressText(target.config)}`, thrown)
}
