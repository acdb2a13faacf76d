/** Hash and length of a statement are those of the bytes that the client sent, whatever they say in its encoding. */
import { hash } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createLongText, decoderFor, wholeText } from '../../src/session/statement-text.ts'

const ENCODINGS = ['UTF8', 'SQL_ASCII', 'LATIN1', 'LATIN9', 'WIN1252', 'SJIS', 'GB18030', 'EUC_JP', 'MULE_INTERNAL']

const sqlBytes = fc.oneof(
  fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes.map((byte) => byte || 1))),
  fc.string({ unit: 'binary', maxLength: 60 }).map((text) => Buffer.from(text.replaceAll('\0', ' '))),
  fc.constantFrom('select 1', "select 'Zürich'", "select '\ufffd'").map((text) => Buffer.from(text)),
)

test('the hash is that of the bytes, whole or in pieces, in any encoding', () => {
  fc.assert(
    fc.property(fc.constantFrom(...ENCODINGS), sqlBytes, (encoding, bytes) => {
      const decode = decoderFor(encoding)
      const framed = Buffer.concat([Buffer.from('Q...'), bytes, Buffer.of(0)])
      const { text = '', sha256, bytes: length } = wholeText(decode, framed, 4, 4 + bytes.length)
      // What has no hash of its own is hashed from its text, which must be the same then.
      expect(sha256 ?? hash('sha256', text, 'hex')).toBe(hash('sha256', bytes, 'hex'))
      expect(length).toBe(bytes.length)
      const long = createLongText(decode)
      long.add(framed, 4, framed.length)
      expect(long.finish().sha256).toBe(hash('sha256', bytes, 'hex'))
    }),
    { numRuns: 1_000, examples: [['SJIS', Buffer.of(0x7f, 0x1a, 0x1c)]] },
  )
})

test('plain ASCII and UTF-8 need no hash of their own, which is made once for a text', () => {
  for (const [encoding, text] of [
    ['UTF8', "select 'Zürich', '表'"],
    ['LATIN1', 'select 1'],
    ['SJIS', 'select 1'],
  ] as const) {
    const bytes = Buffer.from(text)
    expect(wholeText(decoderFor(encoding), bytes, 0, bytes.length).sha256).toBeUndefined()
  }
})
