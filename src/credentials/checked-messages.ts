/**
 * Between the admin's socket and pg's parser, which trusts a server: on a count or a length that lies it throws out of the socket's
 * event, which ends the process, and an ErrorResponse without an end makes it loop for ever (both tried with pg-protocol 1.16).
 */
import type { Duplex } from 'node:stream'
import type pg from 'pg'

const HEADER = 5
/** An answer to the admin is a few hundred bytes; rows of a catalog that jobs filled may be many, each of them small. */
const MAX_MESSAGE = 1024 * 1024
const ERROR_RESPONSE = 0x45
const NOTICE_RESPONSE = 0x4e

type Take = (chunk: Buffer) => void

/** (field type, string)*, then one NUL that is the last byte. */
function hasFields(message: Buffer): boolean {
  let offset = HEADER
  while (offset < message.length && message[offset] !== 0) {
    const end = message.indexOf(0, offset + 1)
    if (end < 0) return false
    offset = end + 1
  }
  return offset === message.length - 1
}

/** Hands on whole messages only. @throws Error at one that cannot be */
function wholeMessages(take: Take): Take {
  let pending: Buffer = Buffer.alloc(0)
  return (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    while (pending.length >= HEADER) {
      const length = pending.readInt32BE(1)
      if (length < 4 || length > MAX_MESSAGE) throw new Error(`a message of the length ${length}`)
      if (pending.length <= length) return
      const message = pending.subarray(0, length + 1)
      pending = pending.subarray(length + 1)
      const told = message[0] === ERROR_RESPONSE || message[0] === NOTICE_RESPONSE
      if (told && !hasFields(message)) throw new Error('an error without its end')
      take(message)
    }
  }
}

/** To be called before `connect`. What a server must not send breaks its connection, and nothing else. */
export function checkMessages(client: pg.Client): void {
  const connection = client.connection as pg.Connection & { attachListeners(stream: Duplex): void }
  const attach = connection.attachListeners.bind(connection)
  // Once the stream is the one that messages come by, after TLS where there is some.
  connection.attachListeners = (stream) => {
    attach(stream)
    for (const listener of stream.listeners('data') as Take[]) {
      stream.off('data', listener)
      const take = wholeMessages(listener)
      stream.on('data', (chunk: Buffer) => {
        if (stream.destroyed) return
        try {
          take(chunk)
        } catch (cause) {
          const error = new Error('PostgreSQL sent something that is no message of its protocol', { cause })
          stream.destroy(Object.assign(error, { code: 'EPROTO' }))
        }
      })
    }
  }
}
