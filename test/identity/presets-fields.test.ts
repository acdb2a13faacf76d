/** Parts of `sub`, URLs out of claims, default audiences, and the keys of a trust bundle: what presets read with code of their own. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readKeySet } from '../../src/identity/key-set.ts'
import { isBelow, webUrl } from '../../src/identity/presets/fields.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import { signingKey } from '../support/tokens.ts'

describe('what is read out of other texts', () => {
  const fromSubject = (preset: 'spiffe' | 'azure-devops', claim: string, subject: string) =>
    PRESETS[preset].claims[claim]?.fromSubject?.(subject)

  test('a SPIFFE ID is its trust domain and its path, and nothing else is one', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9._-]{1,8}$/)
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z0-9._-]{1,12}$/),
        fc.array(segment, { minLength: 1, maxLength: 4 }),
        (domain, path) => {
          const subject = `spiffe://${domain}/${path.join('/')}`
          const isPlain = path.every((one) => one !== '.' && one !== '..')
          expect(fromSubject('spiffe', 'trust_domain', subject)).toBe(isPlain ? domain : undefined)
          expect(fromSubject('spiffe', 'path', subject)).toBe(isPlain ? `/${path.join('/')}` : undefined)
        },
      ),
    )
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', 'Z', '.', '-', '_', '/', ':', '%', ' ', '\n', '\0', 'é', '\u202e') }),
        (text) => {
          for (const subject of [text, `spiffe://${text}`, `spiffe://acme.example/${text}`]) {
            const found = [fromSubject('spiffe', 'trust_domain', subject), fromSubject('spiffe', 'path', subject)]
            expect(
              found[0] === undefined ? [subject, undefined] : [`spiffe://${found[0]}${found[1]}`, found[1]],
            ).toEqual([subject, found[1]])
          }
        },
      ),
    )
  })

  test('the subject of an Azure pipeline is organisation, project and pipeline', () => {
    const segment = fc.stringMatching(/^[^/\n]{1,12}$/)
    fc.assert(
      fc.property(segment, segment, segment, (organization, project, pipeline) => {
        const subject = `p://${organization}/${project}/${pipeline}`
        expect(fromSubject('azure-devops', 'organization', subject)).toBe(organization)
        expect(fromSubject('azure-devops', 'project', subject)).toBe(project)
        expect(fromSubject('azure-devops', 'pipeline', subject)).toBe(pipeline)
        expect(fromSubject('azure-devops', 'project', `sc${subject}`)).toBeUndefined()
      }),
    )
  })

  test('a URL out of a claim is https, without credentials, query and fragment', () => {
    expect(webUrl('https://github.com/acme/shop.git')).toBe('https://github.com/acme/shop')
    expect(webUrl('https://dana:secret@git.acme.example/shop?token=x#y')).toBe('https://git.acme.example/shop')
    for (const text of [
      'http://git.acme.example/shop',
      'git@github.com:acme/shop.git',
      'javascript:alert(1)',
      '',
      undefined,
    ])
      expect(webUrl(text)).toBeUndefined()
    fc.assert(
      fc.property(fc.oneof(fc.webUrl({ withQueryParameters: true, withFragments: true }), fc.string()), (text) => {
        const found = webUrl(text)
        if (found === undefined) return
        const { protocol, username, password, search, hash } = new URL(found)
        expect([protocol, username, password, search, hash]).toEqual(['https:', '', '', '', ''])
      }),
    )
  })

  test('a trust bundle’s keys for tokens are taken, those for certificates are not', () => {
    const { jwk } = signingKey('k1')
    const keys = ['jwt-svid', 'x509-svid', 'enc', 'sig'].map((use) => ({ ...jwk, kid: use, use }))
    expect(readKeySet({ keys, spiffe_sequence: 7 }, ['ES256']).keys.map(({ kid }) => kid)).toEqual(['jwt-svid', 'sig'])
  })

  test('one segment below a base', () => {
    expect(isBelow('https://git.example', 'https://git.example/acme')).toBe(true)
    expect(isBelow('https://git.example', 'https://git.example/acme/')).toBe(true)
    for (const url of [
      'https://git.example',
      'https://git.example/',
      'https://git.example/a/b',
      'https://git.example.org/a',
    ])
      expect(isBelow('https://git.example', url)).toBe(false)
    expect(isBelow(undefined, 'https://git.example/acme')).toBe(false)
  })
})
