/**
 * The configuration file as zod schemas. Field docs become the JSON Schema's descriptions. Everything is strict: an unknown
 * key is an error. Durations are strings such as `30s`, `15m`, `2h` and come out in milliseconds; sizes such as `64KiB` come
 * out in bytes. Cross-field and policy checks live in `policy/compile.ts`; syntax and positions in `load.ts`. A file named by `include` holds `rules` only.
 */
import { z } from 'zod'
import { duration, hostPort, objectName, size, timerDuration } from './scalars.ts'

export const PRESET_NAMES = [
  'github-actions',
  'gitlab',
  'buildkite',
  'jenkins',
  'circleci',
  'forgejo',
  'bitbucket',
  'azure-devops',
  'spacelift',
  'hcp-terraform',
  'semaphore',
  'codefresh',
  'harness',
  'kubernetes',
  'google',
  'aws',
  'entra',
  'okta',
  'spiffe',
  'generic',
] as const
export type PresetName = (typeof PRESET_NAMES)[number]

export const TEXT_MODES = ['full', 'normalized', 'fingerprint', 'none'] as const
export type TextMode = (typeof TEXT_MODES)[number]

/** pgaudit's words; what falls in each is in docs/statements.md. */
export const STATEMENT_CLASSES = ['READ', 'WRITE', 'FUNCTION', 'ROLE', 'DDL', 'MISC', 'MISC_SET'] as const
export type AllowedClass = (typeof STATEMENT_CLASSES)[number]

const path = z.string().min(1)
const claimValue = z.string()

const listenTls = z.strictObject({
  cert: path.describe('PEM file with the certificate chain that jobs verify; read again on SIGHUP'),
  key: path.describe('PEM file with its private key'),
  min_version: z.enum(['1.2', '1.3']).default('1.2'),
})

const listen = z.strictObject({
  address: hostPort.describe('host:port, or unix:/path/of/socket'),
  tls: listenTls.optional(),
  plaintext: z
    .enum(['refuse', 'allow'])
    .default('refuse')
    .describe('allow takes tokens without TLS, and only loads for a loopback address or a Unix socket'),
  handshake_timeout: timerDuration.prefault('15s').describe('from accept to ReadyForQuery'),
  max_sessions: z.int().min(1).max(100_000).default(1_000),
  max_unauthenticated: z.int().min(1).max(100_000).default(1_000),
  max_unauthenticated_per_address: z.int().min(1).max(100_000).default(200),
})

const ticketKey = z
  .string()
  .regex(
    /^([A-Za-z0-9+/_-]{43,}={0,2})$/,
    '32 random bytes or more in base64, as `openssl rand -base64 32` prints them',
  )

const tickets = z.strictObject({
  key: z
    .union([ticketKey, z.array(ticketKey).min(1).max(10)])
    .transform((value) => (typeof value === 'string' ? [value] : value))
    .describe('seals the tickets of this pgusher; of several the first seals and each opens. Replicas share it'),
})

const http = z.strictObject({
  address: hostPort.prefault('127.0.0.1:6433').describe('for /livez, /readyz and /metrics'),
})

const control = z.strictObject({
  socket: path.describe(
    "Unix socket for `pgusher sessions` and `pgusher kill`: whoever may open it, which is pgusher's own user and root, may end jobs",
  ),
})

const audit = z.strictObject({
  file: z
    .strictObject({
      path,
      rotate: size.prefault('256MiB').describe('a new file is begun at this size, and on SIGUSR2'),
      keep: z.int().min(1).max(10_000).default(30).describe('how many rotated files stay'),
    })
    .optional(),
  stdout: z.boolean().default(false),
  text: z.enum(TEXT_MODES).default('full').describe('how much of a statement is recorded; hash and length always are'),
  on_failure: z
    .enum(['deny', 'continue'])
    .default('deny')
    .describe('deny: without a working audit no new session starts and running ones end at their next statement'),
  deadline: timerDuration.prefault('1s').describe('a write that takes longer counts as a failure'),
  max_event: size.prefault('64KiB').describe('a longer statement text is cut; its hash and length are kept'),
})

const issuer = z.strictObject({
  preset: z.enum(PRESET_NAMES),
  url: z
    .url()
    .optional()
    .describe("the token's `iss`, byte for byte; the preset knows it for providers with one shared issuer"),
  audience: z.string().min(1).describe('the `aud` that jobs must ask their CI system for'),
  require: z
    .record(z.string(), claimValue)
    .default({})
    .describe('ANDed into every rule of this issuer; the place for the tenancy claim'),
  jwks_url: z.url().optional().describe('instead of discovery'),
  jwks_file: path.optional().describe('a JWK set in a file, for issuers that pgusher cannot reach'),
  ca: path.optional().describe("PEM file of the CA that signed the issuer's TLS certificate"),
  algorithms: z
    .array(z.enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']))
    .min(1)
    .optional(),
  max_token_life: timerDuration.optional().describe('ceiling on exp - iat; the preset has one'),
  max_token_age: timerDuration.optional().describe('ceiling on now - iat; the preset has one'),
  run_url_base: z
    .url()
    .optional()
    .describe('base of links to runs where it is not the issuer, e.g. of GitHub Enterprise Server'),
  allow_events: z
    .array(z.string())
    .default([])
    .describe('events that the preset refuses and that you accept, e.g. pull_request_target'),
  claims: z
    .record(z.string(), z.array(z.string()).min(1))
    .default({})
    .describe('generic preset only: names for nested claims, as paths of keys'),
  tenancy: z
    .array(z.string())
    .default([])
    .describe('generic preset only: claims that identify a tenant or project; each rule names one'),
  explain: z.boolean().default(true).describe('false: a denied job never learns what a rule wanted'),
})

const upstreamTls = z.strictObject({
  mode: z.enum(['verify-full', 'verify-ca', 'require', 'disable']).default('verify-full'),
  ca: path.optional().describe("PEM file; the system's CAs without it"),
  server_name: z.string().optional().describe("the name in the server's certificate, where it is not `host`"),
})

const admin = z.strictObject({
  user: objectName,
  password: z.string().min(1).optional(),
  cert: path.optional(),
  key: path.optional(),
  dbname: objectName.optional().describe("the database that the admin connects to; the entry's `dbname` without it"),
})

const mintingAdmin = admin.extend({
  connections: z
    .int()
    .min(2)
    .max(50)
    .default(4)
    .describe(
      'how many the admin may have open at once, to make and to remove roles side by side; two stay, the others come and go',
    ),
})

const ephemeralRole = z.strictObject({
  kind: z.literal('ephemeral-role'),
  admin: mintingAdmin,
  prefix: z
    .string()
    .regex(/^[a-z][a-z0-9_]{1,15}_$/, 'lower case letters, digits and _, 3 to 17 characters, ending in _')
    .default('pgu_')
    .describe('of the login roles that pgusher makes; no other role may begin with it'),
  linger: duration
    .prefault('2s')
    .describe("how long a role stays after its job's last session, for a job that reconnects"),
})

const clientCertificate = z.strictObject({
  kind: z.literal('client-certificate'),
  ca: z.strictObject({ cert: path, key: path }).describe('the CA that PostgreSQL trusts in ssl_ca_file'),
  life: timerDuration.prefault('5m').describe('of a minted certificate'),
  linger: duration.prefault('0s'),
})

const warm = z
  .strictObject({
    keep: z.int().min(1).max(100).default(8).describe('connections of one job and grant'),
    life: timerDuration
      .prefault('30s')
      .describe("of an unused one; it never outlives the job's role, which goes `linger` after the last session"),
    total: z.int().min(1).max(1_000).default(20).describe('connections of all jobs'),
  })
  .describe('keeps the upstream connection of a session that ended for the next session of the same job and grant')

const database = z.strictObject({
  host: z.string().min(1).describe("name or address, or the absolute path of a Unix socket's directory"),
  port: z.int().min(1).max(65_535).default(5432),
  dbname: objectName.optional().describe("the entry's own name without it"),
  tls: upstreamTls.prefault({}),
  connect_timeout: timerDuration.prefault('5s'),
  credentials: z.discriminatedUnion('kind', [ephemeralRole, clientCertificate]),
  warm: warm.optional(),
  audit: z.strictObject({ text: z.enum(TEXT_MODES).optional() }).default({}),
})

const condition = z.union([
  claimValue,
  z.strictObject({ in: z.array(claimValue).min(1) }),
  z.strictObject({ not_in: z.array(claimValue).min(1) }),
  z.strictObject({ glob: z.string().min(1).describe('* stands for any characters but / and :') }),
])

const names = z
  .union([objectName, z.array(objectName).min(1)])
  .transform((value) => (typeof value === 'string' ? [value] : value))

const allow = z.strictObject({
  database: names.describe('entries of `databases`'),
  role: names.describe('existing group roles; the job asks for one as its user name'),
  statements: z
    .array(z.enum(STATEMENT_CLASSES))
    .min(1)
    .optional()
    .describe(
      'classes of statements that may run; all without it. A second fence: the privileges of the role are the first',
    ),
  max_session: timerDuration.prefault('1h'),
  max_connections: z.int().min(1).max(10_000).default(10).describe('sessions that one job may hold at once'),
  statement_timeout: duration.optional(),
  lock_timeout: duration.optional(),
  idle_in_transaction_session_timeout: duration.optional(),
  job_window: timerDuration
    .optional()
    .describe(
      'from the first connection with a valid token; until then the job may connect again with that token although it has expired',
    ),
  window_connections: z
    .int()
    .min(1)
    .max(100_000)
    .default(1_000)
    .describe('how often a job may connect with a token that has expired'),
  ticket_life: timerDuration
    .optional()
    .describe('how long a ticket lives that a job gets for its token; without it the rule gives no tickets'),
  any_address: z
    .boolean()
    .default(false)
    .describe('true: windows and tickets are not bound to the address that opened or asked for them'),
  function_call: z
    .boolean()
    .default(false)
    .describe("the FunctionCall message, which runs code without SQL; libpq's lo_* use it"),
  replication: z.boolean().default(false).describe('the replication protocol'),
  audit: z.strictObject({ text: z.enum(TEXT_MODES).optional() }).default({}),
})

const deny = z.strictObject({ database: names.optional(), role: names.optional() })

const rule = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'letters, digits, . _ -, up to 63 characters'),
  issuer: z.string(),
  match: z.record(z.string(), condition),
  allow: allow.optional(),
  deny: deny.optional(),
  on_deny: z
    .strictObject({ message: z.string().max(500).optional(), contact: z.string().max(200).optional() })
    .optional(),
  expires: z.iso
    .date()
    .or(z.iso.datetime())
    .optional()
    .describe('from this moment on the rule allows nothing; a deny rule does not expire silently, it stays'),
  explain: z.boolean().default(true),
})

export const configSchema = z.strictObject({
  version: z.literal(1),
  instance: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,63}$/)
    .optional()
    .describe("this replica's name in events; the host name without it"),
  listen,
  http: http.prefault({}),
  control: control.optional(),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info') }).prefault({}),
  audit: audit.prefault({}),
  tickets: tickets.optional(),
  drain_timeout: duration.prefault('30s').describe('how long SIGTERM waits for running statements'),
  issuers: z.record(z.string(), issuer),
  databases: z.record(objectName, database),
  include: z
    .array(z.string().min(1))
    .default([])
    .describe('further rule files or globs, relative to this file, read in the order of their names'),
  rules: z.array(rule).default([]),
})

export type Config = z.output<typeof configSchema>
export type IssuerConfig = Config['issuers'][string]
export type DatabaseConfig = Config['databases'][string]
export type UpstreamTlsConfig = DatabaseConfig['tls']
export type EphemeralRoleConfig = z.output<typeof ephemeralRole>
export type ClientCertificateConfig = z.output<typeof clientCertificate>
export type RuleConfig = Config['rules'][number]
export type AuditConfig = Config['audit']
export type ConditionConfig = z.output<typeof condition>
export type ListenConfig = Config['listen']
