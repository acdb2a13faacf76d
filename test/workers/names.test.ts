import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { auditFileOf, instanceOf, workerAuditFiles } from '../../src/workers/names.ts'

test('a worker has its number in its name and in the name of its log', () => {
  expect(instanceOf('ci-proxy', 2)).toBe('ci-proxy-2')
  expect(auditFileOf('/var/log/pgusher/audit.jsonl', 1)).toBe('/var/log/pgusher/audit-1.jsonl')
  expect(auditFileOf('/var/log.d/audit', 12)).toBe('/var/log.d/audit-12')
})

test('the logs of workers are found beside that of the primary, and nothing that looks like them', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-names-'))
  const others = [
    'audit-x.jsonl',
    'audit-1.jsonl.20261121T090000.000Z-1',
    'audit-01.jsonl',
    'audit-.jsonl',
    'audit-1.5.jsonl',
  ]
  const files = ['audit.jsonl', 'audit-10.jsonl', 'audit-2.jsonl', ...others]
  await Promise.all(files.map((name) => writeFile(join(directory, name), '')))
  const found = await workerAuditFiles(join(directory, 'audit.jsonl'))
  expect(found).toEqual(['audit-2.jsonl', 'audit-10.jsonl'].map((name) => join(directory, name)))
  await rm(directory, { recursive: true })
})
