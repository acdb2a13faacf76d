/**
 * What was put into the password in place of a token. No signature has been looked at yet, so nothing here tells anything of
 * the configuration; and nothing of what was sent is repeated, since it may be a secret of something else.
 */
import { AccessError, type DenialCode } from '../errors.ts'
import { isCutToken } from './cut-token.ts'

const HOW_TO_GET_ONE =
  'GitHub Actions gives a job a token only with "permissions: id-token: write", and none to a pull request from a fork; ' +
  'GitLab gives one with "id_tokens:"'

/** Patterns see no more than this; each is linear. */
const LOOKED_AT = 4_096

interface Mistake {
  code: Extract<DenialCode, 'token_missing' | 'token_malformed'>
  message: string
  hint: string
}

/** @param why what there is in place of a token, as `the password of the connection string is empty` */
export function tokenMissing(why: string): AccessError {
  return new AccessError('token_missing', `no token: ${why}; ${HOW_TO_GET_ONE}`, {
    hint: 'Print the length of the token in the job, not the token: printf %s "$TOKEN" | wc -c. Zero means that the CI system gave none.',
  })
}

/** The usual mistake behind a password that is no token; undefined where it is not obvious. */
export function mistakenPassword(password: string): AccessError | undefined {
  const text = password.slice(0, LOOKED_AT)
  const word = /^(null|undefined|none|nil|false|\(null\)|""|'')$/i.exec(text)?.[1]
  if (word !== undefined) {
    return tokenMissing(`the password is ${wordFor(word)}, which a script prints where the CI's answer has no token`)
  }
  const found = notExpanded(text) ?? wrapped(text) ?? anotherSecret(text) ?? cut(password)
  return found === undefined ? undefined : new AccessError(found.code, found.message, { hint: found.hint })
}

/** Any other password without the shape of a token. */
export function notAToken(): AccessError {
  return new AccessError(
    'token_malformed',
    'the password is not an OIDC token but something else, such as a database password: pgusher takes none of those; put the token that the CI system issues to this job into the password',
    { hint: SECRET_SHOWN },
  )
}

/**
 * A JSON Web Token of an issuer that is not configured. CI systems have some for their own machinery, next to the one that is
 * meant: what kind it is may be told, since that comes from the token and not from the configuration.
 */
export function unknownIssuer({ iss, scp }: Readonly<Record<string, unknown>>): AccessError {
  const own =
    typeof scp === 'string' && /(^|[ :])Actions\.\w/.test(scp.slice(0, LOOKED_AT))
      ? `a token of the runner's own (ACTIONS_ID_TOKEN_REQUEST_TOKEN or ACTIONS_RUNTIME_TOKEN), not an OIDC token: it is what one asks for a token with, at $ACTIONS_ID_TOKEN_REQUEST_URL`
      : iss === 'app.vstoken.visualstudio.com'
        ? 'System.AccessToken of Azure DevOps, not an OIDC token: it is what one asks for a token with, at $SYSTEM_OIDCREQUESTURI'
        : undefined
  if (own === undefined) return issuerNotConfigured()
  return new AccessError('issuer_unknown', `the password is ${own}`, { hint: SECRET_SHOWN })
}

/** The same whatever is configured: nobody has proved to be anybody yet. */
export function issuerNotConfigured(): AccessError {
  return new AccessError('issuer_unknown', "the token's issuer is not configured here", {
    hint: `pgusher whoami --local prints the token's iss where the job runs: it must be, byte for byte, the one that the operator of pgusher has configured.`,
  })
}

/** Words of a fixed list, in one spelling: nothing is repeated. */
function wordFor(word: string): string {
  return /^["']/.test(word) ? 'a pair of quotation marks' : `the word ${word.toLowerCase().replace(/[()]/g, '')}`
}

function notExpanded(text: string): Mistake | undefined {
  const missing = (message: string): Mistake => ({
    code: 'token_missing',
    message: `no token: the password is ${message}`,
    hint: `${HOW_TO_GET_ONE}.`,
  })
  if (/^\$\{\{.*\}\}$/s.test(text)) {
    return missing(
      'an expression in double braces that was not evaluated: the CI system does that in its workflow files only, so pass the value by "env:" to scripts and to files that they read',
    )
  }
  if (/^(%[A-Za-z_]\w*%|\$env:[A-Za-z_]\w*)$/i.test(text)) {
    return missing(
      'what looks like the name of a variable, not replaced by its value: %NAME% is for cmd, $env:NAME for PowerShell, and other programs take neither',
    )
  }
  if (/^(\$[A-Za-z_]\w*|\$\{[^}]*\}|\$\(.*\)|`.*`)$/s.test(text)) {
    return missing(
      'what looks like a shell variable or command that was not expanded: put it into double quotes, not single ones, and into a command that a shell runs, not into a file',
    )
  }
  if (/^(\*{3,}|\[masked\])$/i.test(text)) {
    return missing(
      'the mask that CI systems print in place of a secret: pass the token by a variable, not by copying it from a log',
    )
  }
  return undefined
}

/** A token with something around it. */
function wrapped(text: string): Mistake | undefined {
  const malformed = (message: string, hint = ALONE): Mistake => ({ code: 'token_malformed', message, hint })
  if (/^\s*[{[]\s*["{]/.test(text)) return json(text)
  if (text.startsWith('@{')) {
    return malformed(
      'the password is a PowerShell object and not the token in it: take its field, as in (Invoke-RestMethod …).value',
    )
  }
  if (/^<(!doctype|html|\?xml)/i.test(text)) {
    return malformed(
      'the password is a web page, not a token: the address that was asked for the token answered with a page, such as a login',
    )
  }
  if (/^curl: \(\d+\)/.test(text)) {
    return malformed('the password is an error message of curl, not a token: the request for the token failed')
  }
  if (/^["']\s*eyJ/.test(text)) {
    return malformed('the token stands in quotation marks: take them away (jq prints none with -r)')
  }
  if (/^bearer\s/i.test(text)) {
    return malformed('the password begins with the word Bearer: take that away, the password is the token alone')
  }
  if (/^(export\s+)?[A-Za-z_]\w*=eyJ/.test(text)) {
    return malformed(
      'the password is an assignment, NAME=token: take the name and its = away, the password is the token alone',
    )
  }
  if (/^(\.{0,2}|~)(\/[\w.-]+){2,}$|^(\.{0,2}|~)\/?[\w.-]+\.(jwt|token|txt)$/.test(text)) {
    return malformed(
      'the password looks like the path of a file that holds the token: put what the file holds into the password, as PGPASSWORD="$(cat FILE)" does',
    )
  }
  // JavaScript counts a byte order mark among white space.
  if (/^\s+eyJ/.test(text)) {
    return malformed('a blank, a line break or a byte order mark stands in front of the token: take it away')
  }
  if (/^eyJ[\w.-]*\s/.test(text)) {
    return malformed(
      'the token has a line break or a blank in it: something wrapped its lines, or put two values together',
    )
  }
  return undefined
}

function json(text: string): Mistake {
  const field = /"(value|id_token|oidcToken|oidc_token|token|access_token)"\s*:\s*"/.exec(text)?.[1]
  const refused = field === undefined && /"(message|error|errors|error_description|typeKey)"\s*:/.test(text)
  const what = refused
    ? 'an error message of the CI in JSON, not a token: the request for the token was refused; on GitHub Actions the job needs "permissions: id-token: write"'
    : field === undefined
      ? 'JSON, not a token: take the token out of it, for example with jq -r'
      : `the CI's whole answer in JSON and not the token in it: take its field "${field}", for example with jq -r .${field}`
  return { code: 'token_malformed', message: `the password is ${what}`, hint: ALONE }
}

const ALONE = 'The password is the token alone: three parts with dots between them, and nothing around them.'
const SECRET_SHOWN =
  'pgusher keeps it nowhere, but it has been where the token belongs: look whether a log of the job shows it, and renew it if so.'

/** Secrets that people have in the same places, by the prefixes that their issuers publish for scanners. */
const KNOWN_SECRETS: readonly (readonly [RegExp, string, string])[] = [
  [/^ghs_/, "GITHUB_TOKEN or another token for GitHub's API", 'github'],
  [/^(ghp_|github_pat_|gho_|ghu_|ghr_)/, 'a GitHub access token', 'github'],
  [/^glcbt-/, "CI_JOB_TOKEN, which is for GitLab's API", 'gitlab'],
  [/^gl(pat|dt|rt|rtr|ptt|ft|imt|agent|soat|ffct|oas|wt)-/, 'a GitLab access token', 'gitlab'],
  [/^bk(ua|ct|aj|at|pt)_/, "a token for Buildkite's API or agent", 'buildkite'],
  [/^CCI(PAT|PRJ)_/, "a token for CircleCI's API", 'circleci'],
  [/^[\w.-]+:\d+\/?\?.*X-Amz-/, 'a login token of Amazon RDS', 'any'],
  [/^(AKIA|ASIA)[A-Z0-9]{12,}/, 'an access key of AWS', 'any'],
  [/^ya29\./, 'an access token of Google', 'any'],
  [/^hv[sbr]\./, 'a token of Vault', 'any'],
  [/^SCRAM-SHA-256\$|^md5[0-9a-f]{32}$/, 'the hash of a database password', 'any'],
  [/^postgres(ql)?:\/\//i, 'a whole connection string', 'any'],
  [/^-----BEGIN /, 'a key or certificate', 'any'],
]

const ASK: Readonly<Record<string, string>> = {
  github: 'ask for one at $ACTIONS_ID_TOKEN_REQUEST_URL, with "permissions: id-token: write" in the job',
  gitlab: 'use the variable that the job names under "id_tokens:"',
  buildkite: 'ask for one with buildkite-agent oidc request-token --audience …',
  circleci: 'ask for one with circleci run oidc get',
  any: 'put the token that the CI system issues to this job into the password',
}

function anotherSecret(text: string): Mistake | undefined {
  for (const [pattern, what, who] of KNOWN_SECRETS) {
    if (!pattern.test(text)) continue
    return {
      code: 'token_malformed',
      message: `the password is ${what}, not an OIDC token: ${ASK[who]}`,
      hint: SECRET_SHOWN,
    }
  }
  return undefined
}

function cut(password: string): Mistake | undefined {
  if (!isCutToken(password)) return undefined
  return {
    code: 'token_malformed',
    message:
      `the token was cut: it ends after ${password.length} characters, in the middle, so something between the CI and here cuts long passwords; ` +
      'use another client, or a ticket in place of the token (POST /v1/token), which is short',
    hint: 'Compare with the length of the token in the job: printf %s "$TOKEN" | wc -c. Tickets are there where the operator has switched them on.',
  }
}
