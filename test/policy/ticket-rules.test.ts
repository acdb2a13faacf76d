/** Findings about rules that give tickets where none can be given. */
import { expect, test } from 'vitest'
import { HEAD } from '../config/write-config.ts'
import { diagnosticsOf } from './policy-of.ts'

const RULE = `rules:
  - name: migrate
    issuer: github
    match: { repository_id: "1" }
    allow: { database: shop, role: reader, ticket_life: 45m }
`
const KEY = `tickets: { key: "${Buffer.alloc(32, 7).toString('base64')}" }\n`

const told = async (text: string): Promise<string[]> =>
  (await diagnosticsOf(text)).map(({ level, message }) => `${level}: ${message}`)

test('with a key, and logins that are roles, there is nothing to say', async () => {
  expect(await told(HEAD + KEY + RULE)).toEqual([])
})

test('without a key no ticket can be given', async () => {
  expect(await told(HEAD + RULE)).toEqual(['warning: no tickets are given: tickets.key is not configured'])
})

test('with client certificates there is no place for them', async () => {
  const certificates = `credentials: { kind: client-certificate, ca: { cert: ca.crt, key: ca.key } }`
  const found = await told((HEAD + KEY + RULE).replace(/credentials: \{.*\}/, certificates))
  expect(found).toContainEqual(
    expect.stringMatching(/^warning: database "shop" gives no tickets: they are kept in its cat/),
  )
})

test.each(['short', 'AAAA', '!'.repeat(44)])('a key of %s is none', async (key) => {
  const found = await told(`${HEAD}tickets: { key: "${key}" }\n${RULE}`)
  expect(found).toContainEqual(expect.stringContaining('32 random bytes or more in base64'))
})
