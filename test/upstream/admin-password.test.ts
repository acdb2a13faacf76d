import { expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { connectAs } from '../../src/credentials/admin-connection.ts'
import { frame, scriptedUpstream } from './scripted-upstream.ts'

test.each([
  ['in the clear', 3, Buffer.alloc(0)],
  ['as an MD5 hash', 5, Buffer.from('salt')],
])("the admin's password goes %s to nobody whose certificate is not verified", async (_how, method, salt) => {
  const heard: Buffer[] = []
  const upstream = await scriptedUpstream(async (peer) => {
    await peer.startup()
    peer.send(frame('R', method, salt))
    for (;;) heard.push(await peer.read(1))
  })
  const config: DatabaseConfig = {
    // This machine, by an address that is not one of the loopback's.
    host: '0.0.0.0',
    port: upstream.port,
    tls: { mode: 'disable' },
    connect_timeout: 2_000,
    credentials: { kind: 'client-certificate', ca: { cert: '', key: '' }, life: 1, linger: 0 },
    audit: {},
  }
  await expect(connectAs(config, { user: 'admin', password: 'hunter2' }, 'shop', 'test')).rejects.toMatchObject({
    code: 'credential_failed',
    hint: expect.stringContaining('tls.mode verify-full'),
  })
  await upstream.allClosed()
  expect(Buffer.concat(heard).toString()).toBe('')
  await upstream.close()
})
