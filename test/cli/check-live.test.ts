import { expect, test } from 'vitest'
import { HEAD, writeConfig } from '../config/write-config.ts'
import { setupShop, sharedPostgres } from '../support/postgres.ts'
import { runCli } from './run-cli.ts'

test('--live asks each database as its admin: no error for a sound role, one for a role that is not there', async () => {
  const server = await sharedPostgres()
  const { admin } = await setupShop(server)
  const rules = (role: string) => `rules:
  - { name: read, issuer: github, match: { repository_id: "1" }, allow: { database: shop, role: ${role} } }
`
  const entry = `databases:
  shop:
    host: "${server.host}"
    port: ${server.port}
    tls: { mode: disable }
    credentials: { kind: ephemeral-role, admin: { user: ${admin.user}, password: "${admin.password}" } }
`
  const head = HEAD.slice(0, HEAD.indexOf('databases:')) + entry
  const sound = await runCli(['check', '--live', '-c', await writeConfig(head + rules('shop_reader'))])
  expect(sound.stdout).toContain('database "shop": ')
  expect(sound.stdout).not.toContain('error:')
  expect(sound).toMatchObject({ code: 0, stderr: '' })
  const missing = await runCli(['check', '--live', '-c', await writeConfig(head + rules('shop_raeder'))])
  expect(missing.stdout).toMatch(/ {2}error: .*shop_raeder/)
  expect(missing).toMatchObject({ code: 1, stderr: '' })
  expect(missing.stdout).not.toContain(admin.password)
})
