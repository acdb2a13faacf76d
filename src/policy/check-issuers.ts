/** Load-time refusals about issuers. */
import { quote, quoteList } from '../config/quote.ts'
import { isLoopback } from '../config/scalars.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { suggestion } from '../config/suggest.ts'
import { isForeignAudience } from '../identity/foreign-audience.ts'
import type { Preset } from '../identity/preset.ts'
import { refusedEvents } from '../identity/preset-rules.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { checkClaim } from './check-claims.ts'
import type { Report } from './report.ts'

export function checkIssuers(report: Report): void {
  const { config, isBroken } = report.loaded
  const entries = Object.entries(config.issuers)
  if (entries.length === 0 && !isBroken(['issuers'])) {
    report.error(['issuers'], 'no issuer is configured, so nobody can connect', undefined, 'key')
  }
  const byUrl = new Map<string, string>()
  for (const [name, issuer] of entries) {
    const url = issuerUrl(issuer)
    checkIssuer(report, name, issuer, url)
    if (url === undefined) continue
    const first = byUrl.get(url)
    if (first === undefined) byUrl.set(url, name)
    else
      report.error(
        ['issuers', name],
        `issuers ${quote(first)} and ${quote(name)} have the same URL ${quote(url)}`,
        'a token must lead to exactly one entry; put both sets of rules under one',
        'key',
      )
  }
}

function checkIssuer(report: Report, name: string, issuer: IssuerConfig, url: string | undefined): void {
  const at = ['issuers', name]
  const preset = PRESETS[issuer.preset]
  if (url === undefined) {
    if (!report.loaded.isBroken([...at, 'url']))
      report.error(
        [...at, 'url'],
        `preset ${issuer.preset} needs the issuer's url`,
        `it is the token's \`iss\`, byte for byte${preset.issuerForm === undefined ? '' : `: ${preset.issuerForm.shown}`}`,
      )
  } else {
    checkUrl(report, [...at, 'url'], url, true)
    checkForm(report, [...at, 'url'], url, preset)
  }
  if (issuer.jwks_url !== undefined) checkUrl(report, [...at, 'jwks_url'], issuer.jwks_url, false)
  if (issuer.jwks_url !== undefined && issuer.jwks_file !== undefined) {
    report.error([...at, 'jwks_file'], 'jwks_url and jwks_file exclude each other', 'keep one of them')
  }
  checkAudience(report, at, issuer, preset, url)
  if (preset.caution !== undefined) report.warning(at, preset.caution, undefined, 'key')
  const known = Object.values(PRESETS).find((one) => one.issuer !== undefined && one.issuer === url)
  if (preset.name === 'generic' && known !== undefined)
    report.warning(
      [...at, 'preset'],
      `${url} is an issuer that preset ${known.name} knows`,
      `write ${known.name}: generic refuses none of the jobs that it refuses, such as those of pull requests`,
    )
  checkPresetOptions(report, at, issuer, preset)
  for (const [claim, value] of Object.entries(issuer.require)) {
    if (!report.loaded.isBroken([...at, 'require', claim]))
      checkClaim(report, [...at, 'require', claim], issuer, claim, value)
  }
}

function checkUrl(report: Report, at: string[], text: string, isIssuer: boolean): void {
  if (!URL.canParse(text)) return
  const url = new URL(text)
  const loopback = isLoopback(url.hostname.replace(/^\[|\]$/g, ''))
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && loopback)) {
    report.error(
      at,
      `${quote(text)} is not an https URL`,
      "keys that arrive without TLS can be anybody's; http is only taken for a loopback address",
    )
  }
  if (url.username !== '' || url.password !== '') report.error(at, 'the URL must not hold a user name or password')
  // OpenID Connect Discovery 1.0, section 3: an issuer has no query and no fragment.
  if (isIssuer && (url.search !== '' || url.hash !== ''))
    report.error(at, `issuer ${quote(text)} must have no query and no fragment`)
}

/** `iss` is compared byte for byte, so a slash too many means that no token is ever known. */
function checkForm(report: Report, at: string[], url: string, { name, issuerForm }: Preset): void {
  if (issuerForm === undefined || issuerForm.like.test(url)) return
  const untied =
    issuerForm.tenantClaim === undefined ? '' : `, and then ${issuerForm.tenantClaim} is not compared with it`
  report.warning(
    at,
    `${quote(url)} is not the form of ${name} issuers: ${issuerForm.shown}`,
    `compare it with \`iss\` of a token, byte for byte; a service that you run yourself may have another${untied}`,
  )
}

function checkAudience(
  report: Report,
  at: string[],
  issuer: IssuerConfig,
  preset: Preset,
  url: string | undefined,
): void {
  if (preset.fixedAudience !== undefined) {
    checkFixedAudience(report, [...at, 'audience'], issuer, preset.fixedAudience(url ?? ''))
    return
  }
  const own = 'choose a URL of your own, such as https://pgusher.example.com, and let jobs ask for that'
  const byUrl = url !== undefined && preset.isDefaultAudience?.(issuer.audience, url) === true
  if (byUrl || preset.refusedAudiences.some((pattern) => pattern.test(issuer.audience))) {
    const message = `${quote(issuer.audience)} is the default audience of ${issuer.preset}`
    report.error([...at, 'audience'], message, `other services accept tokens for it too; ${own}`)
  } else if (isForeignAudience(issuer.audience, issuer.preset)) {
    // Whether jobs can choose is known of presets only; an issuer that gives no other must stay possible.
    const say = issuer.preset === 'generic' ? report.warning : report.error
    const message = `${quote(issuer.audience)} is the audience of another service`
    say([...at, 'audience'], message, `a token that a job shows there would be good here; ${own}`)
  }
}

function checkFixedAudience(report: Report, at: string[], issuer: IssuerConfig, fixed: string | undefined): void {
  if (fixed !== undefined && issuer.audience !== fixed) {
    report.error(
      at,
      `tokens of ${issuer.preset} never have the audience ${quote(issuer.audience)}: a job cannot choose it`,
      `write ${quote(fixed)}`,
    )
    return
  }
  report.warning(
    at,
    `a job of ${issuer.preset} cannot choose its token's audience: every service that a job shows its token to can connect here with it`,
    'let rules name the pipelines that may connect, and show the tokens of these to nobody else',
  )
}

function checkPresetOptions(report: Report, at: string[], issuer: IssuerConfig, preset: Preset): void {
  if (issuer.preset !== 'generic') {
    for (const key of ['claims', 'tenancy'] as const) {
      const given = key === 'claims' ? Object.keys(issuer.claims) : issuer.tenancy
      if (given.length > 0)
        report.error(
          [...at, key],
          `${key} is for preset generic only; ${issuer.preset} brings its own`,
          undefined,
          'key',
        )
    }
  }
  const refused = refusedEvents(preset)
  for (const [index, event] of issuer.allow_events.entries()) {
    if (refused.includes(event)) continue
    const hint = suggestion(event, refused, 'events that it refuses') ?? 'remove it'
    report.error(
      [...at, 'allow_events', index],
      `preset ${issuer.preset} does not refuse ${quote(event)}, so allowing it means nothing`,
      hint,
    )
  }
  for (const [index, algorithm] of (issuer.algorithms ?? []).entries()) {
    if (preset.algorithms.includes(algorithm)) continue
    report.warning(
      [...at, 'algorithms', index],
      `${issuer.preset} is known to sign with ${quoteList(preset.algorithms)} only`,
    )
  }
}
