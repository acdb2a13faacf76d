/** The policy file that the demo writes, as an operator would write it. */
import type { Issuer } from './issuer.ts'
import { DEMO_AUDIENCE, RUN_URL_BASE } from './issuer.ts'
import type { Shop } from './shop.ts'
import type { Upstream } from './upstream-url.ts'

export interface PolicyParts {
  upstream: Upstream
  shop: Shop
  issuer: Issuer
  /** Where pgusher listens on 127.0.0.1. */
  port: number
}

/** A string as YAML takes it: JSON's notation, with `$` escaped where it would expand. */
const text = (value: string): string => JSON.stringify(value).replaceAll('${', () => '$${')

/** Paths in it are relative to the file's directory. */
export function policyFile({ upstream, shop, issuer, port }: PolicyParts): string {
  const tls = upstream.tls.caFile === undefined ? '' : `, ca: ${text(upstream.tls.caFile)}`
  return `# The policy of the demo. Rules are what you would write for your own jobs; issuers and certificates are throw-away ones.
# What would it decide?  pgusher explain --config FILE --token-file TOKEN --database shop-prod --user ${shop.migrator}
version: 1
instance: demo
listen:
  address: 127.0.0.1:${port}
  tls: { cert: tls.crt, key: tls.key }
http: { address: "127.0.0.1:0" }
audit:
  file: { path: audit.jsonl }
drain_timeout: 1s

issuers:
  github:
    preset: github-actions
    url: ${issuer.issuerUrl('github')}      # leave it out for github.com
    run_url_base: ${RUN_URL_BASE.github}
    audience: ${DEMO_AUDIENCE}
    require: { repository_owner_id: "9100001" }          # our organisation, by id: names can be taken by others
  gitlab:
    preset: gitlab
    url: ${issuer.issuerUrl('gitlab')}
    run_url_base: ${RUN_URL_BASE.gitlab}
    audience: ${DEMO_AUDIENCE}
    require: { namespace_id: "72" }
  buildkite:
    preset: buildkite
    url: ${issuer.issuerUrl('buildkite')}
    audience: ${DEMO_AUDIENCE}
    require: { organization_id: d94f33ab-8ac6-4ccc-bdd8-c709f28aa794 }
  jenkins:
    preset: jenkins
    url: ${issuer.issuerUrl('jenkins')}
    run_url_base: ${RUN_URL_BASE.jenkins}
    audience: ${DEMO_AUDIENCE}

databases:
  shop-prod:
    host: ${text(upstream.host)}
    port: ${upstream.port}
    dbname: ${shop.database}
    tls: { mode: ${upstream.tls.mode}${tls} }
    credentials:
      kind: ephemeral-role
      prefix: ${shop.prefix}
      linger: 1s
      # Of this demo only; yours comes from the environment alone.
      admin: { user: ${shop.admin.user}, password: "\${PGUSHER_ADMIN_PASSWORD:-${shop.admin.password}}" }

rules:
  - name: migrate-production
    issuer: github
    match: { repository_id: "784500001", ref: refs/heads/main, environment: production, event_name: { in: [push, workflow_dispatch] } }
    allow: { database: shop-prod, role: ${shop.migrator}, max_session: 30m, max_connections: 5 }
    on_deny: { message: Production migrations run only from main., contact: "#db-help" }
  - name: nightly-report
    issuer: gitlab
    match: { project_id: "20451", pipeline_source: schedule, ref_protected: "true" }
    allow: { database: shop-prod, role: ${shop.reader}, max_session: 10m }
  - name: by-hand
    issuer: gitlab
    match: { project_id: "20451", pipeline_source: web, ref_protected: "true" }
    allow: { database: shop-prod, role: [${shop.migrator}, ${shop.reader}], max_session: 1h, max_connections: 50 }
  - name: deploy
    issuer: buildkite
    match: { pipeline_id: 7ddd6920-d6cb-492b-9a36-e6482a2e780b, build_branch: main }
    allow: { database: shop-prod, role: ${shop.migrator} }
  - name: smoke-test
    issuer: jenkins
    match: { sub: https://jenkins.acme.example/job/acme/job/shop/job/main/ }
    allow: { database: shop-prod, role: ${shop.reader} }
`
}
