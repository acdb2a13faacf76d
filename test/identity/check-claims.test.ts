import { expect, test } from 'vitest'
import { PRESET_NAMES } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { checkTime } from '../../src/identity/check-claims.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import { AUDIENCE, issuerConfig } from '../support/tokens.ts'

function refusal(work: () => void): AccessError {
  try {
    work()
  } catch (error) {
    if (error instanceof AccessError) return error
  }
  throw new Error('accepted')
}

test.each(PRESET_NAMES)(
  '%s: an expired token says on one line how to get one at connect time, or that there is none',
  (name) => {
    const exp = Date.parse('2026-11-21T12:00:00Z')
    const times = { exp, iat: exp - 300_000, nbf: undefined }
    const { message, hint } = refusal(() => checkTime(times, 'ci', issuerConfig(name), exp + 180_000))
    expect(message).toMatch(/^the token expired 3 min ago; /)
    expect(message.length).toBeLessThan(330)
    const { tokenRecipe, refetchable } = PRESETS[name]
    const beginning = tokenRecipe.replaceAll('AUD', AUDIENCE).slice(0, 20)
    expect(message).toContain(refetchable ? beginning : 'a job gets this token once, at its start')
    expect(hint).toContain(tokenRecipe.replaceAll('AUD', AUDIENCE))
  },
)
