import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { createMetrics } from '../../src/telemetry/metrics.ts'

test('everything that is counted is in the text for Prometheus', async () => {
  const metrics = createMetrics({
    sessions: () => 3,
    unauthenticated: () => 1,
    credentials: () => 2,
    auditAccepting: () => false,
    auditEvents: () => 6,
    issuerKeys: () => ({ github: true, gitlab: false }),
  })
  metrics.connection()
  metrics.sessionEnded('success', 'client')
  metrics.denial('no_matching_rule')
  metrics.statements('success', 5)
  metrics.bytes('in', 100)
  metrics.bytes('out', 2000)
  metrics.connectStep('mint', 0.004)
  metrics.credential('ephemeral-role', 'issued')
  metrics.auditFailure()
  metrics.policyReload('failure')
  const text = await metrics.render()
  expect(metrics.contentType).toContain('text/plain')
  for (const line of [
    'pgusher_connections_total 1',
    'pgusher_sessions 3',
    'pgusher_unauthenticated_connections 1',
    'pgusher_sessions_total{outcome="success",code="client"} 1',
    'pgusher_denials_total{code="no_matching_rule"} 1',
    'pgusher_statements_total{outcome="success"} 5',
    'pgusher_bytes_total{direction="in"} 100',
    'pgusher_bytes_total{direction="out"} 2000',
    'pgusher_connect_seconds_bucket{le="0.005",step="mint"} 1',
    'pgusher_credentials_total{kind="ephemeral-role",event="issued"} 1',
    'pgusher_credentials 2',
    'pgusher_audit_events_total 6',
    'pgusher_audit_failures_total 1',
    'pgusher_audit_accepting 0',
    'pgusher_issuer_keys_usable{issuer="github"} 1',
    'pgusher_issuer_keys_usable{issuer="gitlab"} 0',
    'pgusher_policy_reload_total{outcome="failure"} 1',
  ]) {
    expect(text.split('\n')).toContain(line)
  }
  expect(text).toContain('process_cpu_seconds_total')
})

test('what an alarm waits for is there with 0 before it first happens: from a series that only then appears, no increase is seen', async () => {
  const operations = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const alarms = [...operations.matchAll(/increase\((pgusher_\w+\{\w+="\w+"\})/g)].map(([, series = '']) => series)
  expect(alarms).toHaveLength(3)
  const samples = (await createMetrics().render()).split('\n').filter((line) => line.endsWith(' 0'))
  for (const series of alarms) {
    const [name = '', label = ''] = series.split(/[{}]/)
    expect(samples.filter((line) => line.startsWith(`${name}{`) && line.includes(label))).not.toEqual([])
  }
})

test('only the policy in force is shown', async () => {
  const metrics = createMetrics()
  metrics.policyVersion('aaa')
  metrics.policyVersion('bbb')
  const text = await metrics.render()
  expect(text).toContain('pgusher_policy_info{version="bbb"} 1')
  expect(text).not.toContain('aaa')
})

test('a label that is no word of ours makes no series of its own', async () => {
  const metrics = createMetrics()
  for (let i = 0; i < 100; i++) metrics.denial(`claim "${i}"`)
  expect(await metrics.render()).toContain('pgusher_denials_total{code="other"} 100')
})

test('two sets of metrics do not know of each other', async () => {
  const [one, two] = [createMetrics(), createMetrics()]
  one.connection()
  expect(await two.render()).toContain('pgusher_connections_total 0')
})
