import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { createBufferReader } from '../../src/wire/reader.ts'
import { byte, cstring, frame, int16, int32 } from '../../src/wire/writer.ts'

type Field =
  | { kind: 'byte' | 'int16' | 'int32'; value: number }
  | { kind: 'cstring'; value: string }
  | { kind: 'bytes'; value: Buffer }

const signed = (bits: number) => fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 })
const field: fc.Arbitrary<Field> = fc.oneof(
  fc.nat(255).map((value) => ({ kind: 'byte' as const, value })),
  signed(16).map((value) => ({ kind: 'int16' as const, value })),
  signed(32).map((value) => ({ kind: 'int32' as const, value })),
  fc
    .string({ unit: 'binary' })
    .filter((value) => !value.includes('\0') && value.isWellFormed())
    .map((value) => ({ kind: 'cstring' as const, value })),
  fc.uint8Array().map((value) => ({ kind: 'bytes' as const, value: Buffer.from(value) })),
)

function encode(value: Field): Buffer {
  switch (value.kind) {
    case 'byte':
      return byte(value.value)
    case 'int16':
      return int16(value.value)
    case 'int32':
      return int32(value.value)
    case 'cstring':
      return cstring(value.value)
    case 'bytes':
      return value.value
  }
}

describe('reader and writer', () => {
  test('what is written is read, in a frame of its own length', () => {
    fc.assert(
      fc.property(fc.array(field), (fields) => {
        const message = frame(0x51, ...fields.map(encode))
        expect(message[0]).toBe(0x51)
        expect(message.readInt32BE(1)).toBe(message.length - 1)
        const reader = createBufferReader(message.subarray(5), 'Query')
        for (const { kind, value } of fields) {
          expect(kind === 'bytes' ? reader.bytes(value.length) : reader[kind]()).toEqual(value)
        }
        expect(reader.remaining).toBe(0)
      }),
    )
  })

  test('every read past the end is a protocol violation that names the message', () => {
    const reads = ['byte', 'int16', 'int32', 'cstring', 'cstringBytes'] as const
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 20 }),
        fc.array(fc.constantFrom(...reads), { minLength: 22 }),
        (bytes, calls) => {
          const reader = createBufferReader(Buffer.from(bytes), 'Parse')
          const walk = () => {
            for (const call of calls) reader[call]()
          }
          expect(walk).toThrow(AccessError)
          expect(walk).toThrow(/Parse/)
        },
      ),
    )
  })

  test('invariant 6: negative and huge lengths are refused and allocate nothing', () => {
    for (const length of [-1, -(2 ** 31), 5, 0x7fffffff]) {
      expect(() => createBufferReader(Buffer.alloc(4), 'Bind').bytes(length)).toThrow('Bind is malformed')
    }
  })
})
