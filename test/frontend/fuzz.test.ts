import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { requestToken } from '../../src/frontend/authenticate.ts'
import { ConnectionClosedError } from '../../src/frontend/message-reader.ts'
import { lastWords } from '../../src/frontend/respond.ts'
import { cancelRequest, gssencRequest, passwordMessage, sslRequest, startupMessage } from '../../src/wire/frontend.ts'
import { listen, readAll } from './listener.ts'

const CI = startupMessage(new Map([['user', 'ci']]))
const PIECES = [
  sslRequest(),
  gssencRequest(),
  cancelRequest(1, Buffer.alloc(4)),
  CI,
  startupMessage(new Map([['user', 'ci']]), 7),
  passwordMessage('aaa.bbb.ccc'),
  Buffer.from('16030100c8010000c40303', 'hex'),
]

/** What a client may do wrong: whole packets in any order, cut ones, and noise; sent at once or piece by piece. */
const piece = fc.oneof(
  fc.constantFrom(...PIECES),
  fc.tuple(fc.constantFrom(...PIECES), fc.nat(20)).map(([bytes, length]) => bytes.subarray(0, length)),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
)

test('invariant 39: whatever is sent ends in a token, a cancel, a refusal with a code, or a closed connection', async () => {
  const outcomes: unknown[] = []
  await using listener = await listen(
    async (handshaken, stream) => {
      try {
        const result = await handshaken
        if (result.kind === 'startup') await requestToken(result, { oauthbearer: false, challenge: undefined })
        outcomes.push('taken')
      } catch (error) {
        outcomes.push(error)
      }
      await lastWords(stream(), Buffer.alloc(0))
    },
    { plaintext: 'allow' },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 5 }), fc.boolean(), async (pieces, atOnce) => {
      const client = listener.connect()
      for (const bytes of atOnce ? [Buffer.concat(pieces)] : pieces) {
        client.write(bytes)
        if (!atOnce) await new Promise(setImmediate)
      }
      client.end()
      await readAll(client)
    }),
    { numRuns: 150 },
  )
  while (listener.open.size > 0) await new Promise(setImmediate)
  expect(outcomes).toHaveLength(150)
  const unexpected = outcomes.filter(
    (outcome) =>
      outcome !== 'taken' && !(outcome instanceof AccessError) && !(outcome instanceof ConnectionClosedError),
  )
  expect(unexpected).toEqual([])
})
