import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createLoginStatements, joinRole, leaveRole, quoteIdentifier, quoteLiteral } from '../../src/credentials/sql.ts'
import { sharedPostgres } from '../support/postgres.ts'

let client: pg.Client

beforeAll(async () => {
  client = new pg.Client((await sharedPostgres()).superuserUrl)
  await client.connect()
})
afterAll(async () => {
  await client?.end()
})

const noNul = fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0'))
const hostile = fc
  .array(fc.constantFrom("'", '"', '\\', '$$', ';', '--', '/*', '\n', 'E', 'ü', '😀', "'')"), { maxLength: 20 })
  .map((parts) => parts.join(''))
const text = fc.oneof(noNul, hostile)

test.each(['on', 'off'])('PostgreSQL reads back each literal, with standard_conforming_strings %s', async (setting) => {
  await client.query(`SET standard_conforming_strings = ${setting}; SET escape_string_warning = off`)
  await fc.assert(
    fc.asyncProperty(text, async (value) => {
      const { rows } = await client.query(`SELECT ${quoteLiteral(value)}::text AS value`)
      expect(rows).toEqual([{ value }])
    }),
    { numRuns: 200 },
  )
  await client.query('RESET standard_conforming_strings')
})

test('PostgreSQL reads back each name', async () => {
  const name = text.filter((value) => Buffer.byteLength(value) > 0 && Buffer.byteLength(value) <= 63)
  await fc.assert(
    fc.asyncProperty(name, async (value) => {
      const { fields } = await client.query(`SELECT 1 AS ${quoteIdentifier(value)}`)
      expect(fields[0]?.name).toBe(value)
    }),
    { numRuns: 200 },
  )
})

test('what cannot be a name or a string is refused, not cut', () => {
  for (const name of ['', 'x'.repeat(64), 'ü'.repeat(32), 'a\0b'])
    expect(() => quoteIdentifier(name)).toThrow(RangeError)
  expect(() => quoteLiteral('a\0b')).toThrow(RangeError)
})

test('the statements of each version', () => {
  const role = {
    login: 'pgu_a',
    group: 'g"x',
    verifier: 'SCRAM',
    validUntil: 0,
    connectionLimit: 4,
    replication: false,
    comment: "it's",
  }
  const attributes = 'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOBYPASSRLS NOREPLICATION CONNECTION LIMIT 4'
  const create = `CREATE ROLE "pgu_a" ${attributes} PASSWORD 'SCRAM' VALID UNTIL '1970-01-01T00:00:00.000Z'`
  const comment = `COMMENT ON ROLE "pgu_a" IS 'it''s'`
  expect(createLoginStatements(role, 160_000)).toEqual([
    create,
    comment,
    'GRANT "g""x" TO "pgu_a" WITH ADMIN FALSE, INHERIT FALSE, SET TRUE',
  ])
  expect(createLoginStatements(role, 150_010)).toEqual([create, comment, 'GRANT "g""x" TO "pgu_a"'])
  expect([joinRole('r', 170_000), leaveRole('r', 170_000)]).toEqual([
    'GRANT "r" TO CURRENT_USER WITH ADMIN FALSE, INHERIT TRUE, SET TRUE',
    'REVOKE "r" FROM CURRENT_USER GRANTED BY CURRENT_USER',
  ])
  expect([joinRole('r', 140_000), leaveRole('r', 140_000)]).toEqual([
    'GRANT "r" TO CURRENT_USER',
    'REVOKE "r" FROM CURRENT_USER',
  ])
})
