/** Messages of a frontend, from their parts, and those of a backend as one short text each, so that a test shows a whole exchange. */
import { FrontendMessage as F } from '../../src/wire/constants.ts'
import { parseErrorFields } from '../../src/wire/error-response.ts'
import { byte, cstring, frame, int16, int32 } from '../../src/wire/writer.ts'

export interface Message {
  /** The type byte as a character. */
  type: string
  body: Buffer
}

/** @param sql as bytes where it is not UTF-8 */
export const query = (sql: string | Buffer): Buffer =>
  frame(F.Query, typeof sql === 'string' ? cstring(sql) : Buffer.concat([sql, byte(0)]))

export const parse = (name: string, sql: string | Buffer, types: readonly number[] = []): Buffer =>
  frame(
    F.Parse,
    cstring(name),
    typeof sql === 'string' ? cstring(sql) : Buffer.concat([sql, byte(0)]),
    int16(types.length),
    ...types.map(int32),
  )

/** Parameters as text. */
export const bind = (portal: string, statement: string, parameters: readonly (string | Buffer | null)[] = []): Buffer =>
  frame(
    F.Bind,
    cstring(portal),
    cstring(statement),
    int16(0),
    int16(parameters.length),
    ...parameters.flatMap((parameter) => {
      if (parameter === null) return [int32(-1)]
      const bytes = Buffer.from(parameter)
      return [int32(bytes.length), bytes]
    }),
    int16(0),
  )

export const describe = (kind: 'S' | 'P', name: string): Buffer => frame(F.Describe, Buffer.from(kind), cstring(name))
export const execute = (portal: string, maxRows = 0): Buffer => frame(F.Execute, cstring(portal), int32(maxRows))
export const close = (kind: 'S' | 'P', name: string): Buffer => frame(F.Close, Buffer.from(kind), cstring(name))
export const sync = frame(F.Sync)
export const flush = frame(F.Flush)
export const terminate = frame(F.Terminate)
export const copyData = (data: string | Buffer): Buffer => frame(F.CopyData, Buffer.from(data))
export const copyDone = frame(F.CopyDone)
export const copyFail = (why: string): Buffer => frame(F.CopyFail, cstring(why))

/** Arguments and result in text format. */
export const functionCall = (oid: number, parameters: readonly string[]): Buffer =>
  frame(
    F.FunctionCall,
    int32(oid),
    int16(0),
    int16(parameters.length),
    ...parameters.flatMap((text) => [int32(Buffer.byteLength(text)), Buffer.from(text)]),
    int16(0),
  )

/** Parse, Bind, Execute of the unnamed statement, without Sync. */
export const run = (sql: string, parameters: readonly (string | null)[] = []): Buffer =>
  Buffer.concat([parse('', sql), bind('', '', parameters), execute('')])

const MAX_SHOWN = 80

/**
 * Type byte and the part that a test looks at: `C SELECT 1`, `Z I`, `D 1|null`, `E 22012 division by zero`, `S name=value`,
 * `A channel payload`, `R 3`, `d …`. Rows are read as text, and cut at 80 characters.
 */
export function shown({ type, body }: Message): string {
  const text = contents(type, body)
  return text === '' ? type : `${type} ${text}`
}

function contents(type: string, body: Buffer): string {
  const cut = (text: string): string => (text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text)
  switch (type) {
    case 'C':
      return body.toString('utf8', 0, body.length - 1)
    case 'Z':
      return body.toString()
    case 'D':
      return cut(columns(body).join('|'))
    case 'E':
    case 'N': {
      const fields = parseErrorFields(body)
      return `${fields.get('C')} ${fields.get('M')}`
    }
    case 'S':
      return body.toString('utf8', 0, body.length - 1).replace('\0', '=')
    case 'A':
      return body.toString('utf8', 4, body.length - 1).replace('\0', ' ')
    case 'R':
      return String(body.readInt32BE())
    case 'd':
      return cut(body.toString('latin1').replace(/\n$/, ''))
    case 'v':
      return `${body.readInt16BE(2)} ${body.toString('utf8', 8).split('\0').slice(0, -1).join(' ')}`.trim()
    case 'V':
      return body.readInt32BE() < 0 ? 'null' : cut(body.toString('utf8', 4))
    default:
      return ''
  }
}

function columns(body: Buffer): string[] {
  const values: string[] = []
  let position = 2
  for (let left = body.readInt16BE(); left > 0; left--) {
    const length = body.readInt32BE(position)
    position += 4
    values.push(length < 0 ? 'null' : body.toString('utf8', position, position + length))
    position += Math.max(0, length)
  }
  return values
}
