/** Configuration files for tests, in a directory of their own that goes away with the test. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'

/** @returns the directory with the given files in it */
export async function writeFiles(files: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-config-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), text)
  }
  return directory
}

/** @returns the path of `pgusher.yaml` with this text, beside the other files */
export async function writeConfig(text: string, others: Readonly<Record<string, string>> = {}): Promise<string> {
  return join(await writeFiles({ ...others, 'pgusher.yaml': text }), 'pgusher.yaml')
}

/** Everything that a configuration needs, without rules. */
export const HEAD = `version: 1
listen: { address: "127.0.0.1:6432", plaintext: allow }
audit: { stdout: true }
issuers:
  github:
    preset: github-actions
    audience: https://pgusher.acme.example
    require: { repository_owner_id: "9100001" }
databases:
  shop:
    host: pg1.internal
    credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: secret } }
  stock:
    host: pg1.internal
    credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: secret } }
`
