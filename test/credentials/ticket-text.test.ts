/** The ticket's text, its seal and its comment, against every way in which they can be cut, changed or mixed up. */
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { carrierName, isLoginName, loginName, ticketOfCarrier } from '../../src/credentials/naming.ts'
import { formatCarrierComment, HEAD_LENGTH, parseCarrierComment } from '../../src/credentials/ticket-comment.ts'
import { jobTag, openTicket, runTag, runTags, sealTicket } from '../../src/credentials/ticket-seal.ts'
import { endOf, formatTicket, newTicketParts, parseTicket, tagOf } from '../../src/credentials/ticket-text.ts'
import type { ClaimValue, Principal } from '../../src/identity/principal.ts'
import { principalOf } from '../support/mint.ts'

const key = randomBytes(32)
const other = randomBytes(32)
const END = 1_795_255_075_658

const parts = fc
  .tuple(fc.string(), fc.integer({ min: 0, max: 4_294_967_295_000 }))
  .map(([alias, end]) => newTicketParts(alias, end))

describe('text', () => {
  test('has 64 characters that nothing has to quote, and says which database and until when', () => {
    const made = newTicketParts('shop-prod', END)
    expect(formatTicket(made, key)).toMatch(/^pgut_[\w-]{59}$/)
    expect(made.tag).toEqual(tagOf('shop-prod'))
    expect(endOf(made)).toBe(1_795_255_076_000)
  })

  test('comes back as it was, under each key that is configured', () => {
    fc.assert(
      fc.property(parts, (made) => {
        expect(parseTicket(formatTicket(made, key), [key])).toEqual(made)
        expect(parseTicket(formatTicket(made, key), [other, key])).toEqual(made)
        expect(parseTicket(formatTicket(made, key), [other])).toBeUndefined()
      }),
    )
  })

  test('is none when it was cut, or a character was changed', () => {
    fc.assert(
      fc.property(parts, fc.nat(63), fc.constantFrom(...'aAzZ09-_=. '), (made, at, character) => {
        const text = formatTicket(made, key)
        const changed = text.slice(0, at) + character + text.slice(at + 1)
        expect(parseTicket(text.slice(0, at), [key])).toBeUndefined()
        expect(parseTicket(text + character, [key])).toBeUndefined()
        if (changed !== text) expect(parseTicket(changed, [key])).toBeUndefined()
      }),
    )
  })

  test('whatever somebody sends is no ticket and no exception', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ minLength: 59, maxLength: 59 })), (text) => {
        expect(parseTicket(text, [key])).toBeUndefined()
        expect(parseTicket(`pgut_${text}`, [key])).toBeUndefined()
      }),
    )
  })
})

const value: fc.Arbitrary<ClaimValue> = fc.oneof(fc.string(), fc.array(fc.string()))
const principals: fc.Arbitrary<Principal> = fc
  .record({
    claims: fc.array(fc.tuple(fc.string(), value)).map((claims) => new Map(claims)),
    auditClaims: fc.dictionary(fc.string(), value, { noNullPrototype: true }),
    subject: fc.string({ unit: 'binary' }),
    tenancyMatches: fc.boolean(),
  })
  .map((change) => ({ ...principalOf('1'), ...change }))

describe('seal', () => {
  const contentOf = (principal: Principal, address: string | undefined) => ({
    ...{ principal, rule: 'migrate', database: 'shop-prod', role: 'shop_migrator', address },
    ...{ issuedAt: END - 1000, expiresAt: END },
  })

  test('opens to what was put in', () => {
    fc.assert(
      fc.property(principals, fc.option(fc.ipV6(), { nil: undefined }), (principal, address) => {
        const made = newTicketParts('shop-prod', END)
        const content = contentOf(principal, address)
        expect(openTicket(sealTicket(content, made, key), made, [other, key])).toEqual({
          id: made.id.toString('hex'),
          ...content,
        })
      }),
      { examples: [[{ ...principalOf('1'), auditClaims: { ['__proto__']: 'a claim' } }, undefined]] },
    )
  })

  test('stays shut without the key, without the secret, under another id, and after any change', () => {
    const content = contentOf(principalOf('1'), '10.0.0.7')
    const made = newTicketParts('shop-prod', END)
    const stranger = newTicketParts('shop-prod', END)
    const sealed = sealTicket(content, made, key)
    expect(openTicket(sealed, made, [other])).toBeUndefined()
    expect(openTicket(sealed, { ...made, secret: stranger.secret }, [key])).toBeUndefined()
    // The comment of one role copied to another.
    expect(openTicket(sealed, { ...made, id: stranger.id }, [key])).toBeUndefined()
    const bytes = Buffer.from(sealed, 'base64')
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] ?? 0) ^ flip
        expect(openTicket(changed.toString('base64'), made, [key])).toBeUndefined()
        expect(openTicket(bytes.subarray(0, at).toString('base64'), made, [key])).toBeUndefined()
      }),
    )
  })

  test('the tags of a run are those of its page, as a person copies it: with its attempt, and with any', () => {
    const page = 'https://github.com/acme/shop/actions/runs/7'
    const tags = runTags({ runUrl: `${page}/attempts/2` }, key)
    for (const url of [page, `${page}/`, `${page}/attempts/2`, `${page}/attempts/2/job/9?pr=3`, `${page}#summary`])
      expect(tags).toContain(runTag(url, key))
    for (const url of [`${page}/attempts/1`, `${page}1`]) expect(tags).not.toContain(runTag(url, key))
    expect(tags).not.toContain(runTag(page, other))
    expect(tags).not.toContain(jobTag(page, key))
    expect(runTags({ runUrl: 'https://ci.example/1' }, key)).toHaveLength(1)
    expect(runTags({}, key)).toEqual([])
  })

  test('the tag of a job is told by who has the key', () => {
    const { jobKey } = principalOf('1')
    expect(jobTag(jobKey, key)).toMatch(/^[0-9a-f]{32}$/)
    expect(jobTag(jobKey, key)).toBe(jobTag(jobKey, key))
    expect(jobTag(jobKey, other)).not.toBe(jobTag(jobKey, key))
    expect(jobTag(principalOf('2').jobKey, key)).not.toBe(jobTag(jobKey, key))
  })
})

describe('comment', () => {
  const job = jobTag('job', key)

  test('comes back as it was, and its beginning alone says when and whose', () => {
    const ends = fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true })
    const runs = fc.array(fc.constantFrom(...runTags({ runUrl: 'https://ci.example/1/attempts/2' }, key)), {
      maxLength: 2,
    })
    fc.assert(
      fc.property(ends, runs, fc.option(fc.base64String(), { nil: undefined }), (end, runs, sealed) => {
        const text = formatCarrierComment({ expiresAt: end.getTime(), job, runs, sealed })
        expect(text).toMatch(/^[ -~]*$/)
        expect(parseCarrierComment(text)).toEqual({ expiresAt: end.getTime(), job, runs, sealed })
        const head = parseCarrierComment(text.slice(0, HEAD_LENGTH))
        expect(head).toMatchObject({ expiresAt: end.getTime(), job, runs })
        expect(head?.sealed === undefined).toBe(sealed === undefined)
      }),
    )
  })

  test('what somebody else wrote is none', () => {
    for (const text of [
      null,
      '',
      'payroll, do not drop',
      '{"pgusher":1}',
      'pgusher ticket 1: until soon, job x, given back',
    ])
      expect(parseCarrierComment(text)).toBeUndefined()
  })
})

test('the names of logins and of carriers are never taken for each other', () => {
  const prefixes = fc.constantFrom('pgu_', 'ci_', 'pgu_t_')
  fc.assert(
    fc.property(prefixes, parts, fc.string(), (prefix, { id }, jobKey) => {
      const carrier = carrierName(prefix, id.toString('hex'))
      expect(Buffer.byteLength(carrier)).toBeLessThan(64)
      expect(ticketOfCarrier(prefix, carrier)).toBe(id.toString('hex'))
      expect(isLoginName(prefix, carrier)).toBe(false)
      expect(ticketOfCarrier(prefix, loginName(prefix, jobKey))).toBeUndefined()
    }),
  )
})
