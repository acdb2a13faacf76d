import { decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  DEMO_AUDIENCE,
  ISSUER_SHAPES,
  type Issuer,
  type IssuerShape,
  startIssuer,
} from '../../../src/cli/demo/issuer.ts'
import type { IssuerConfig, PresetName } from '../../../src/config/schema.ts'
import { createVerifier, type Verifier } from '../../../src/identity/verifier.ts'
import { createCa } from '../../support/certificates.ts'
import { issuerConfig } from '../../support/tokens.ts'

const PRESET: Readonly<Record<IssuerShape, PresetName>> = {
  github: 'github-actions',
  gitlab: 'gitlab',
  buildkite: 'buildkite',
  jenkins: 'jenkins',
}
let issuer: Issuer
let verifier: Verifier
/** Moved on by tests that rotate keys: pgusher asks an issuer at most twice a minute. */
let later = 0

beforeAll(async () => {
  issuer = await startIssuer()
  const configs = ISSUER_SHAPES.map((shape): [string, IssuerConfig] => [
    shape,
    issuerConfig(PRESET[shape], { url: issuer.issuerUrl(shape), audience: DEMO_AUDIENCE }),
  ])
  verifier = createVerifier(Object.fromEntries(configs), { now: () => Date.now() + later })
})
afterAll(async () => {
  verifier.close()
  await issuer.close()
})

describe('the demo issuer', () => {
  test.each(ISSUER_SHAPES)('a %s token passes its preset', async (shape) => {
    const principal = await verifier.verify(await issuer.token(shape))
    expect(principal).toMatchObject({ issuerName: shape, provider: PRESET[shape], iss: issuer.issuerUrl(shape) })
    expect(principal.claims.has('client_id')).toBe(false)
    expect(principal.job.runId).toMatch(/412$/)
  })

  test('claims can be replaced and left out, audience and life chosen', async () => {
    const { claims } = await verifier.verify(
      await issuer.token('github', { ref: 'refs/heads/fix-1', actor: undefined }),
    )
    expect(claims.get('ref')).toBe('refs/heads/fix-1')
    expect(claims.get('workflow_ref')).toBe('acme/shop/.github/workflows/deploy.yml@refs/heads/fix-1')
    expect(claims.has('actor')).toBe(false)
    await expect(verifier.verify(await issuer.token('github', {}, { audience: 'other' }))).rejects.toMatchObject({
      code: 'audience_mismatch',
    })
    await expect(verifier.verify(await issuer.token('buildkite', {}, { lifeSeconds: 7200 }))).rejects.toMatchObject({
      code: 'token_too_old',
    })
  })

  test.each(['github', 'jenkins'] as const)('rotated %s keys', async (shape) => {
    await verifier.verify(await issuer.token(shape))
    const before = await issuer.token(shape)
    await issuer.rotateKeys(shape)
    const after = await issuer.token(shape)
    const kids = [before, after].map((token) => decodeProtectedHeader(token).kid)
    expect(kids[0] === kids[1]).toBe(shape === 'jenkins')
    later += 31_000
    const fetches = issuer.requests[shape].jwks
    expect((await verifier.verify(after)).issuerName).toBe(shape)
    expect(issuer.requests[shape].jwks).toBe(fetches + 1)
    await expect(verifier.verify(before)).rejects.toMatchObject({ code: 'signature_invalid' })
  })

  test('down: known keys serve on; a verifier without keys says that it has none', async () => {
    await verifier.verify(await issuer.token('gitlab'))
    issuer.setDown('gitlab', true)
    await verifier.verify(await issuer.token('gitlab'))
    const config = issuerConfig('gitlab', { url: issuer.issuerUrl('gitlab'), audience: DEMO_AUDIENCE })
    const fresh = createVerifier({ gitlab: config })
    await expect(fresh.verify(await issuer.token('gitlab'))).rejects.toMatchObject({ code: 'issuer_keys_unavailable' })
    fresh.close()
    issuer.setDown('gitlab', false)
  })

  test('asked for a token as a GitHub job asks', async () => {
    const { requestUrl, requestToken } = issuer.actions
    const ask = (authorization: string) =>
      fetch(`${requestUrl}&audience=${encodeURIComponent(DEMO_AUDIENCE)}`, { headers: { authorization } })
    const answer = (await (await ask(`bearer ${requestToken}`)).json()) as { value: string }
    expect((await verifier.verify(answer.value)).provider).toBe('github-actions')
    expect((await ask('bearer wrong')).status).toBe(401)
  })

  test('over https', async () => {
    const ca = await createCa()
    const secure = await startIssuer({ tls: await ca.issue({ cn: 'issuer', ips: ['127.0.0.1'] }) })
    expect(secure.issuerUrl('github')).toMatch(/^https:\/\/127\.0\.0\.1:\d+\/github$/)
    expect((await secure.token('github')).split('.')).toHaveLength(3)
    await secure.close()
  })
})
