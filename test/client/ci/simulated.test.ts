/** Each CI system in a simulated run of its own: recognised, and its token fetched in the way that its documentation gives. */
import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { CI_SYSTEMS } from '../../../src/client/ci/index.ts'
import { findTokenSource } from '../../../src/client/token-source.ts'
import { ownClaims } from '../../../src/client/token-text.ts'
import { createVerifier } from '../../../src/identity/verifier.ts'
import { CI_NAMES, type CiName } from '../../support/ci/claims.ts'
import { type CiIssuer, startCiIssuer } from '../../support/ci/issuer.ts'
import { type SimulatedCi, simulateCi } from '../../support/ci/simulate.ts'
import { issuerConfig } from '../../support/tokens.ts'

let issuer: CiIssuer
const open: SimulatedCi[] = []

beforeAll(async () => {
  issuer = await startCiIssuer()
})

afterAll(async () => {
  await Promise.all(open.map((one) => one.close()))
  await issuer.close()
})

async function job(name: CiName): Promise<SimulatedCi> {
  const simulated = await simulateCi(name, issuer)
  open.push(simulated)
  return simulated
}

const AUDIENCE = 'https://pgusher.acme.example/?of=the%20database&that=is asked for'
const asList = (audience: unknown): unknown[] => (Array.isArray(audience) ? audience : [audience])

/** What stands in the contract; a test that reads the presets would agree with them whatever they say. */
const CONTRACT: Readonly<Record<CiName, { name: string; refetchable: boolean; fixedAudience: boolean }>> = {
  'github-actions': { name: 'GitHub Actions', refetchable: true, fixedAudience: false },
  forgejo: { name: 'Forgejo Actions', refetchable: true, fixedAudience: false },
  gitlab: { name: 'GitLab CI/CD', refetchable: false, fixedAudience: true },
  buildkite: { name: 'Buildkite', refetchable: true, fixedAudience: false },
  circleci: { name: 'CircleCI', refetchable: true, fixedAudience: false },
  jenkins: { name: 'Jenkins', refetchable: false, fixedAudience: true },
  kubernetes: { name: 'Kubernetes', refetchable: true, fixedAudience: true },
  codefresh: { name: 'Codefresh', refetchable: true, fixedAudience: false },
  'azure-devops': { name: 'Azure DevOps', refetchable: true, fixedAudience: true },
  bitbucket: { name: 'Bitbucket Pipelines', refetchable: false, fixedAudience: true },
  semaphore: { name: 'Semaphore', refetchable: false, fixedAudience: true },
  spacelift: { name: 'Spacelift', refetchable: false, fixedAudience: true },
  'hcp-terraform': { name: 'HCP Terraform', refetchable: false, fixedAudience: true },
  harness: { name: 'Harness CI', refetchable: false, fixedAudience: true },
  google: { name: 'Google Cloud', refetchable: true, fixedAudience: false },
  aws: { name: 'AWS', refetchable: true, fixedAudience: false },
}

test.each(CI_NAMES)('%s is recognised, and gives a token for the audience', async (name) => {
  const { env, asked } = await job(name)
  const source = await findTokenSource({ env })
  const { refetchable, fixedAudience } = source
  expect(source.preset).toBe(name)
  expect({ name: source.name, refetchable, fixedAudience }).toEqual(CONTRACT[name])
  const claims = ownClaims(await source.fetch(AUDIENCE))
  expect(claims['iss']).toBe(issuer.issuerUrl(name))
  expect(asList(claims['aud'])).toContain(fixedAudience ? issuer.audience(name) : AUDIENCE)
  if (!fixedAudience) expect(asked).toEqual([AUDIENCE])
})

test('docs/whoami.md lists them, by what they are recognised and whether they give tokens again', async () => {
  const text = await readFile(new URL('../../../docs/whoami.md', import.meta.url), 'utf8')
  const cells = [...text.matchAll(/^ +\| (.+) \|$/gm)].slice(2).map(([, row = '']) => row.split(' | '))
  const written = cells.map(([name, marks = '', , again]) => ({
    name,
    marks: marks.replaceAll('`', '').split(', '),
    again: again === 'yes',
  }))
  const known = CI_SYSTEMS.map(({ name, preset, marks }) => ({
    name,
    marks: marks.split(/ or | with /),
    again: CONTRACT[preset as CiName].refetchable,
  }))
  const byName = (a: { name?: string | undefined }, b: { name?: string | undefined }) =>
    (a.name ?? '').localeCompare(b.name ?? '')
  expect(written.toSorted(byName)).toEqual(known.toSorted(byName))
})

test('what each gives is a job for pgusher, by its preset', async () => {
  const principals = await Promise.all(
    CI_NAMES.map(async (name) => {
      const verifier = createVerifier({ [name]: issuerConfig(name, issuer.issuerConfig(name)) })
      const { env } = await job(name)
      try {
        return await verifier.verify(await (await findTokenSource({ env })).fetch(issuer.audience(name)))
      } finally {
        verifier.close()
      }
    }),
  )
  expect(principals.map(({ provider }) => provider)).toEqual(CI_NAMES)
})

test.each(CI_NAMES.filter((name) => CONTRACT[name].refetchable))('%s gives a new token each time', async (name) => {
  const { env } = await job(name)
  const source = await findTokenSource({ env })
  if (name === 'kubernetes') {
    const before = await source.fetch('')
    // As a kubelet does it before the token ends.
    await writeFile(env['PGUSHER_ID_TOKEN_FILE'] ?? '', `${await issuer.token(name)}\n`)
    expect(await source.fetch('')).not.toBe(before)
    return
  }
  const [one, other] = await Promise.all([source.fetch('a'), source.fetch('b')])
  expect(one).not.toBe(other)
})

test('a token service that fails for a moment is asked again', async () => {
  const simulated = await job('github-actions')
  simulated.failNext(503, 429)
  const source = await findTokenSource({ env: simulated.env })
  expect(ownClaims(await source.fetch(AUDIENCE))['iss']).toBe(issuer.issuerUrl('github-actions'))
})
