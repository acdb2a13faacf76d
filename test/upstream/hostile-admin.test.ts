/** A PostgreSQL that answers the minting admin with what is no message: its connection breaks, and the process goes on. */
import { afterEach, expect, test } from 'vitest'
import { connectAs } from '../../src/credentials/admin-connection.ts'
import { isConnectionFailure } from '../../src/credentials/failure.ts'
import {
  AUTHENTICATION_OK,
  closeScriptedUpstreams,
  databaseConfig,
  frame,
  READY,
  SESSION,
  scriptedUpstream,
} from './scripted-upstream.ts'

afterEach(closeScriptedUpstreams)

test.each([
  ['a row of fields that are not there', frame('D', Buffer.from([0, 100]))],
  ['a description of columns that are not there', frame('T', Buffer.from([0, 9, 65]))],
  ['a length of nothing', Buffer.from([0x44, 0, 0, 0, 0])],
  ['a negative length', Buffer.from([0x44, 0xff, 0xff, 0xff, 0xff])],
  ['a length of a gigabyte', Buffer.from([0x44, 0x3f, 0xff, 0xff, 0xff])],
  ['a COPY of columns that are not there', frame('G', Buffer.from([0]))],
  ['a key of no bytes', frame('K')],
  ['an error without its end', frame('E', 'SFATAL\0C57P03')],
  ['an error without any field', frame('E')],
])('%s', async (_what, bytes) => {
  const { port } = await scriptedUpstream(async (peer) => {
    await peer.startup()
    peer.send(AUTHENTICATION_OK, SESSION)
    await peer.message()
    peer.send(bytes)
  })
  const client = await connectAs(databaseConfig(port), { user: 'pgusher_admin', password: 'secret' }, 'shop', 'test')
  const thrown = await client.query('select 1').catch((error: unknown) => error)
  expect(thrown).toMatchObject({ message: 'PostgreSQL sent something that is no message of its protocol' })
  expect(isConnectionFailure(thrown)).toBe(true)
})

test('a message in pieces of one byte is one message', async () => {
  const { port } = await scriptedUpstream(async (peer) => {
    await peer.startup()
    peer.send(AUTHENTICATION_OK, SESSION)
    await peer.message()
    for (const byte of Buffer.concat([frame('C', 'SELECT 0\0'), READY])) {
      await new Promise((sent) => peer.socket.write(Buffer.from([byte]), sent))
    }
    // Terminate.
    await peer.message()
    peer.socket.end()
  })
  const client = await connectAs(databaseConfig(port), { user: 'pgusher_admin', password: 'secret' }, 'shop', 'test')
  expect((await client.query('select')).command).toBe('SELECT')
  await client.end()
})
