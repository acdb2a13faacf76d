/** `GET /v1/audience`: what a job has to ask its CI system for. Public, as an audience is. */
import { PRESET_NAMES } from '../config/schema.ts'
import { type Answer, RequestError } from './answer.ts'
import type { AudienceAnswer } from './api.ts'
import type { Call } from './endpoint.ts'
import { targetOf } from './read-request.ts'

export function audience({ request, proxy }: Call): Answer {
  const { issuers, tickets } = proxy.current().config
  const preset = targetOf(request).searchParams.get('preset')
  if (preset !== null && !(PRESET_NAMES as readonly string[]).includes(preset)) {
    throw new RequestError(400, 'bad_request', `preset is one of ${PRESET_NAMES.join(', ')}`)
  }
  const wanted = Object.values(issuers).filter((issuer) => preset === null || issuer.preset === preset)
  const unique = new Map(wanted.map((issuer) => [`${issuer.preset} ${issuer.audience}`, issuer]))
  const audiences = [...unique.values()].map((issuer) => ({ preset: issuer.preset, audience: issuer.audience }))
  if (wantsText(request.headers.accept)) return asText([...new Set(audiences.map((one) => one.audience))])
  const body: AudienceAnswer = { audiences, tickets: tickets !== undefined }
  return { status: 200, body }
}

/** For a shell script: `AUD=$(curl -fsS -H 'Accept: text/plain' …)`. */
function asText(audiences: readonly string[]): Answer {
  const [only, ...others] = audiences
  if (only !== undefined && others.length === 0) return { status: 200, text: only }
  const why =
    only === undefined ? 'no audience is configured for that' : 'there are several audiences: name one by ?preset='
  return { status: only === undefined ? 404 : 409, text: why }
}

function wantsText(accept = ''): boolean {
  return /\btext\/plain\b/.test(accept) && !/\bapplication\/json\b/.test(accept)
}
