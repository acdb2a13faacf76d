/**
 * Jenkins with the OpenID Connect Provider plugin. Source: the plugin's README and source. Before its fix of SECURITY-3574
 * a build could set JOB_URL and so forge another job's `sub`; a verifier cannot see which version is installed.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, link, MINUTE, text } from './fields.ts'

/** `https://ci/oidc` and, for a folder's credential, `https://ci/oidc/job/acme/job/team`. */
function jenkinsUrl(iss: string): string | undefined {
  return /^(https?:\/\/.+?)\/oidc(\/job\/.*)?$/.exec(iss)?.[1]
}

/** The job's path below Jenkins, escaped; undefined where `sub` is not a URL below the configured Jenkins. */
function jobPath(base: string | undefined, sub: string | undefined): string | undefined {
  if (base === undefined || sub === undefined || !URL.canParse(sub) || !URL.canParse(base)) return undefined
  const root = new URL(base.endsWith('/') ? base : `${base}/`)
  const job = new URL(sub)
  if (job.origin !== root.origin || !job.pathname.startsWith(root.pathname)) return undefined
  return job.pathname.slice(root.pathname.length).replace(/\/$/, '')
}

/** `job/acme/job/shop/job/main` as `acme/shop/main`; a branch's own slash stays escaped (`feature%2Fx`). */
function jobName(path: string | undefined): string | undefined {
  if (path === undefined || !/^job\/[^/]+(\/job\/[^/]+)*$/.test(path)) return undefined
  return path.slice('job/'.length).replaceAll('/job/', '/')
}

export const jenkins: Preset = {
  name: 'jenkins',
  sharedIssuer: () => false,
  tenancyClaims: [],
  claims: {
    sub: { class: 'mutable', identifying: true, audit: true },
    build_number: { class: 'trusted', audit: true },
    // Templates: their variables can be set by the build on plugins without the fix.
    job_name: { class: 'claimed', audit: true },
    build_url: { class: 'claimed', audit: true },
  },
  openClaims: true,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: 10 * MINUTE,
  executionMarkers: ['build_number'],
  refused: [],
  mustAgree: [],
  tokenRecipe:
    "withCredentials([string(credentialsId: 'ID', variable: 'PG_ID_TOKEN')]) { … } around the step that connects, with a credential whose audience is AUD",
  refetchable: true,
  refusedAudiences: [],
  job(claims, { iss, runUrlBase }) {
    const base = runUrlBase ?? jenkinsUrl(iss)
    const sub = text(claims, 'sub')
    const build = text(claims, 'build_number')
    const path = jobPath(base, sub)
    const jobUrl =
      base === undefined || path === undefined || path === '' ? undefined : `${base.replace(/\/+$/, '')}/${path}`
    const runUrl = link(jobUrl, build)
    return known({
      pipelineName: jobName(path) ?? sub,
      runId: build,
      runUrl: runUrl === undefined ? undefined : `${runUrl}/`,
    })
  },
  jobKey: (claims) => [text(claims, 'sub'), text(claims, 'build_number')],
}
