/** The configuration that integration tests begin with: four CI systems, the shop of `postgres.ts`, and a rule for each way in. */
import type { z } from 'zod'
import { DEMO_AUDIENCE, type Issuer, RUN_URL_BASE } from '../../src/cli/demo/issuer.ts'
import type { configSchema } from '../../src/config/schema.ts'
import type { PostgresServer, Shop } from './postgres.ts'

/** A configuration as it stands in a file. */
export type ConfigInput = z.input<typeof configSchema>
export type RuleInput = NonNullable<ConfigInput['rules']>[number]
export type DatabaseInput = ConfigInput['databases'][string]

export interface Paths {
  cert: string
  key: string
  audit: string
}

/** GitHub's production jobs migrate, GitLab's protected branches read, Buildkite migrates the warehouse, one Jenkins job reads. */
export const RULES: readonly RuleInput[] = [
  {
    name: 'migrate-production',
    issuer: 'github',
    match: {
      repository_id: '784500001',
      ref: 'refs/heads/main',
      environment: 'production',
      event_name: { in: ['push', 'workflow_dispatch'] },
    },
    allow: { database: ['shop-prod', 'warehouse'], role: 'shop_migrator', max_session: '30m', max_connections: 50 },
    on_deny: { message: 'Production migrations run only from main.', contact: '#db-help' },
  },
  {
    name: 'report',
    issuer: 'gitlab',
    match: { project_id: '20451', ref_protected: 'true' },
    allow: { database: 'shop-prod', role: 'shop_reader' },
  },
  {
    name: 'load-warehouse',
    issuer: 'buildkite',
    match: { pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b', build_branch: 'main' },
    allow: { database: 'warehouse', role: ['shop_migrator', 'shop_reader'] },
  },
  {
    name: 'nightly',
    issuer: 'jenkins',
    match: { sub: 'https://jenkins.acme.example/job/acme/job/shop/job/main/' },
    allow: { database: 'shop-prod', role: 'shop_reader' },
  },
]

export function databaseEntry(server: PostgresServer, shop: Shop, dbname: string): DatabaseInput {
  return {
    host: server.host,
    port: server.port,
    dbname,
    tls: { mode: 'disable' },
    // No time to reuse a role between tests: what a session leaves is to be seen at once.
    credentials: { kind: 'ephemeral-role', admin: shop.admin, linger: '0' },
  }
}

export function baseConfig(server: PostgresServer, shop: Shop, issuer: Issuer, paths: Paths): ConfigInput {
  const from = (shape: keyof typeof RUN_URL_BASE) => ({
    url: issuer.issuerUrl(shape),
    audience: DEMO_AUDIENCE,
    run_url_base: RUN_URL_BASE[shape],
  })
  return {
    version: 1,
    instance: 'stage',
    listen: { address: '127.0.0.1:0', tls: { cert: paths.cert, key: paths.key } },
    http: { address: '127.0.0.1:0' },
    audit: { file: { path: paths.audit }, deadline: '10s' },
    drain_timeout: '2s',
    issuers: {
      github: { preset: 'github-actions', ...from('github'), require: { repository_owner_id: '9100001' } },
      gitlab: { preset: 'gitlab', ...from('gitlab'), require: { namespace_id: '72' } },
      buildkite: {
        preset: 'buildkite',
        ...from('buildkite'),
        require: { organization_id: 'd94f33ab-8ac6-4ccc-bdd8-c709f28aa794' },
      },
      jenkins: { preset: 'jenkins', ...from('jenkins') },
    },
    databases: {
      'shop-prod': databaseEntry(server, shop, 'shop'),
      warehouse: databaseEntry(server, shop, 'warehouse'),
    },
    rules: [...RULES],
  }
}
