/** Load-time refusals about the listener, the audit and the databases. */
import { durationText, isLoopback } from '../config/scalars.ts'
import type { DatabaseConfig } from '../config/schema.ts'
import type { Report } from './report.ts'

export function checkSettings(report: Report): void {
  checkListener(report)
  const { config, isBroken } = report.loaded
  if (config.audit.file === undefined && !config.audit.stdout && !isBroken(['audit'])) {
    report.error(['audit'], 'the audit has no sink', 'set audit.file.path, or audit.stdout: true', 'key')
  }
  if (Object.keys(config.databases).length === 0 && !isBroken(['databases'])) {
    report.error(['databases'], 'no database is configured, so nobody can connect', undefined, 'key')
  }
  for (const [name, database] of Object.entries(config.databases)) checkDatabase(report, name, database)
}

function checkListener(report: Report): void {
  const { config, isBroken } = report.loaded
  if (isBroken(['listen'])) return
  const { address, tls, plaintext } = config.listen
  const local = address.kind === 'unix' || isLoopback(address.host)
  if (plaintext === 'allow' && !local) {
    const hint =
      'tokens would cross the network in the clear; bind to 127.0.0.1 or a Unix socket, or remove it and use tls'
    report.error(['listen', 'plaintext'], 'plaintext: allow is only for a loopback address or a Unix socket', hint)
  }
  if (tls === undefined && plaintext === 'refuse') {
    const hint = local
      ? 'add listen.tls, or plaintext: allow on this local address'
      : 'add listen.tls with cert and key'
    report.error(['listen'], 'the listener has no TLS, so every connection would be refused', hint, 'key')
  }
}

function checkDatabase(report: Report, name: string, database: DatabaseConfig): void {
  const at = ['databases', name]
  const { credentials, tls } = database
  if (report.loaded.isBroken(at)) return
  const remote = !database.host.startsWith('/') && !isLoopback(database.host)
  if (tls.mode === 'disable' && credentials.kind === 'client-certificate') {
    report.error([...at, 'tls', 'mode'], 'a client certificate needs TLS to the database', 'use tls.mode: verify-full')
  } else if (tls.mode === 'disable' && remote) {
    report.warning(
      [...at, 'tls', 'mode'],
      'statements and results cross the network in the clear',
      'use tls.mode: verify-full',
    )
  } else if (tls.mode === 'require' && remote) {
    report.warning(
      [...at, 'tls', 'mode'],
      'tls.mode: require verifies no certificate, so anyone on the path can answer',
      'use tls.mode: verify-full',
    )
  }
  checkWarm(report, [...at, 'warm', 'life'], database)
  if (credentials.kind !== 'ephemeral-role') return
  const { cert, key, user } = credentials.admin
  if ((cert === undefined) !== (key === undefined)) {
    report.error(
      [...at, 'credentials', 'admin'],
      `the admin has a ${cert === undefined ? 'key but no cert' : 'cert but no key'}`,
      undefined,
      'key',
    )
  }
  if (user.startsWith(credentials.prefix)) {
    const hint = 'roles with that prefix are removed by the sweeper; choose another prefix or another admin'
    report.error(
      [...at, 'credentials', 'admin', 'user'],
      `the admin's name begins with the minting prefix "${credentials.prefix}"`,
      hint,
    )
  }
}

/** A warm connection is logged in by the job's credential, and ends with it. While another session of the job is there, it does live on. */
function checkWarm(report: Report, at: string[], { credentials: { linger }, warm }: DatabaseConfig): void {
  if (warm === undefined || linger >= warm.life) return
  const goes = linger === 0 ? 'with' : `${durationText(linger)} after`
  const life = durationText(warm.life)
  const shorter = linger === 0 ? '' : `, or warm.life to ${durationText(linger)}`
  report.warning(
    at,
    `the job's credential goes ${goes} its last session, and warm connections with it, before their life of ${life} is over`,
    `set credentials.linger to ${life}${shorter}`,
  )
}
