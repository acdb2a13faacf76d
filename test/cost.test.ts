/** What the main thread pays for one input that a stranger or a job may size. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Classifier, createClassifier } from '../src/audit/classifier.ts'
import { redactSecrets } from '../src/audit/sql-redact.ts'
import { decodeToken, MAX_TOKEN_BYTES } from '../src/identity/token.ts'
import { createScramClient, ScramError } from '../src/sasl/scram.ts'
import { parseStartupPacket } from '../src/wire/startup.ts'
import { cstring } from '../src/wire/writer.ts'
import { cpuOf } from './support/cpu-time.ts'

/** Milliseconds; a main loop that is held up for longer than this at once is what is to be kept from it. */
const LIMIT = 50
const SIZE = 64 * 1024

let classifier: Classifier
beforeAll(async () => {
  classifier = await createClassifier({ log: () => {}, deadline: 10_000 })
})
afterAll(() => classifier.close())

const thrown = (work: () => unknown) => (): unknown => {
  try {
    return work()
  } catch (error) {
    return error
  }
}

const base64url = (text: string): string => Buffer.from(text).toString('base64url')
const HEADER = base64url('{"alg":"RS256"}')
const tokenOf = (payload: string): string => `${HEADER}.${base64url(payload)}.AAAA`.slice(0, MAX_TOKEN_BYTES)

test.each<[string, () => unknown]>([
  ['a token of brackets', () => decodeToken(tokenOf(`{"a":${'['.repeat(40_000)}`))],
  ['a token of many claims', () => decodeToken(tokenOf(`{${Array.from({ length: 3_000 }, (_, i) => `"k${i}":1`)}}`))],
  ['a token of one long claim', () => decodeToken(tokenOf(`{"iss":"${'\\u0041'.repeat(7_000)}"}`))],
  ['a token of dots', () => decodeToken(`ey${'.'.repeat(MAX_TOKEN_BYTES - 2)}`)],
  ['a password of percent signs', () => decodeToken('%'.repeat(MAX_TOKEN_BYTES))],
  ['a password of braces', () => decodeToken('${{ '.repeat(MAX_TOKEN_BYTES / 4))],
  ['a startup packet of names', () => parseStartupPacket(manyNames())],
  ['an iteration count beyond our own', () => answerOf('r=nonce1,s=AAAA,i=999999999')],
  ['SQL of quotes', () => redactSecrets(`password ${"'".repeat(SIZE)}`)],
  ['SQL of dollar signs', () => redactSecrets(`password ${'$a$'.repeat(SIZE / 3)}`)],
  ['SQL of comments', () => redactSecrets(`password ${'/*'.repeat(SIZE / 2)}`)],
  ['SQL of words that speak of secrets', () => redactSecrets('password secret token '.repeat(SIZE / 22))],
])('invariant 39: %s costs the main thread less than 50 ms', async (_what, work) => {
  expect(await cpuOf(thrown(work))).toBeLessThan(LIMIT)
})

test('invariant 39: SQL that takes the parser long does so in another thread', async () => {
  let round = 0
  // A text of its own each time, or the cache would answer.
  const deep = () =>
    classifier.classify(`select ${++round}, ${'('.repeat(900)}1${')'.repeat(900)}, ${'1,'.repeat(25_000)}1`)
  expect(await cpuOf(deep)).toBeLessThan(LIMIT)
})

/** As long as a startup packet may be, 10,000 bytes. */
function manyNames(): Buffer {
  const names = Array.from({ length: 1_200 }, (_, index) => Buffer.concat([cstring(`n${index}`), cstring('v')]))
  return Buffer.concat([Buffer.of(0, 3, 0, 0), ...names, Buffer.of(0)]).subarray(0, 10_000)
}

/** An upstream's first words in SCRAM. */
function answerOf(message: string): void {
  const keys = { clientKey: Buffer.alloc(32), serverKey: Buffer.alloc(32), salt: Buffer.alloc(3), iterations: 1 }
  const client = createScramClient(keys, { nonce: 'nonce' })
  client.initialResponse()
  expect(() => client.continue(message)).toThrow(ScramError)
}
