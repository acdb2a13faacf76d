/** An identity and records of statements, without anything of the test runner. */
import type { SessionIdentity, StatementRecord } from '../../src/audit/recorder.ts'

export const identity: SessionIdentity = {
  sessionId: '0198-session',
  client: { address: '10.1.2.3', port: 54_321 },
  tlsProtocol: 'TLSv1.3',
  principal: {
    issuerName: 'github',
    provider: 'github-actions',
    iss: 'https://token.actions.githubusercontent.com',
    subject: 'repo:acme/shop:environment:production',
    claims: new Map([['repository', 'acme/shop']]),
    auditClaims: { repository: 'acme/shop', repository_id: '784500001' },
    job: {
      pipelineName: 'deploy',
      runId: '123',
      runUrl: 'https://github.com/acme/shop/actions/runs/123',
      taskName: 'migrate',
      taskRunId: '77',
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'refs/heads/main',
      commit: 'c0ffee',
      changeId: '42',
      environment: 'production',
      actor: 'octocat',
    },
    jobKey: 'k',
    tokenSha256: 'ab'.repeat(32),
    expiresAt: Date.UTC(2026, 10, 21, 12),
    issuedAt: Date.UTC(2026, 10, 21, 11),
    tenancyMatches: true,
  },
  db: {
    alias: 'shop-prod',
    role: 'shop_migrator',
    login: 'pgu_x',
    namespace: 'shop',
    serverAddress: 'pg1.internal',
    serverPort: 5432,
  },
  rule: { name: 'migrate-production', ruleset: 'policy.yaml', version: 'cd'.repeat(32) },
}

export function statement(text: string | undefined, changes: Partial<StatementRecord> = {}): StatementRecord {
  return {
    text,
    textBytes: Buffer.byteLength(text ?? ''),
    textSha256: undefined,
    truncated: false,
    protocol: 'simple',
    statementName: '',
    batchIndex: 0,
    inBatch: false,
    tx: 'idle',
    startedAt: 1_000,
    endedAt: 1_002.5,
    returnedRows: 1,
    affectedRows: 1,
    requestBytes: 30,
    responseBytes: 60,
    outcome: 'success',
    sqlstate: undefined,
    errorType: undefined,
    functionOid: undefined,
    parameters: undefined,
    ...changes,
  }
}
