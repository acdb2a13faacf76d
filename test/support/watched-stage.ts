/** A stage whose pgusher is a process of its own, with a fault proxy before its database and an account of what a fault left. */

import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { nothingLeft, openSockets, type Watched } from './nothing-left.ts'
import { type ConfigInput, type Stage, type StageOptions, startStage } from './pgusher.ts'
import type { PostgresServer } from './postgres.ts'
import { setupShop, sharedPostgres } from './postgres.ts'

export interface WatchedStage extends AsyncDisposable {
  readonly stage: Stage
  /** Between pgusher and the database `shop-prod`; `warehouse` is reached without it. */
  readonly path: FaultProxy
  readonly server: PostgresServer
  /** Waits until nothing is left of the sessions so far. @throws Error with what is left */
  nothingLeft(timeout?: number): Promise<void>
}

export interface WatchedStageOptions extends StageOptions {
  /** Without it the test file's own; the shop is set up on it here. */
  server?: PostgresServer
  /** Where the audit is written elsewhere, or goes on in a second file. */
  auditFiles?: (stage: Stage) => readonly string[]
}

export async function startWatchedStage({ server: own, ...options }: WatchedStageOptions = {}): Promise<WatchedStage> {
  const server = own ?? (await sharedPostgres())
  const upstream = { server, shop: await setupShop(server) }
  const path = await startFaultProxy(server)
  const throughPath = (config: ConfigInput): ConfigInput => {
    const shop = { ...config.databases['shop-prod']!, port: path.port, connect_timeout: '10s' }
    return { ...config, databases: { ...config.databases, 'shop-prod': shop } }
  }
  const { config = (given: ConfigInput) => given } = options
  const stage = await startStage({
    ...options,
    ...{ upstream, spawn: true },
    config: (given) => config(throughPath(given)),
  })
  const watched: Watched = {
    get pid() {
      return stage.pgusher.child?.pid ?? 0
    },
    get httpAddress() {
      return stage.pgusher.httpAddress
    },
    auditFiles: async () => options.auditFiles?.(stage) ?? [stage.auditFile],
    admin: (sql) => stage.admin(sql),
  }
  // What a first session opens and keeps: the admin's connections to each database.
  const token = await stage.token()
  for (const database of ['shop-prod', 'warehouse']) {
    await stage.session({ token, database }, (client) => client.query('select 1'))
  }
  await stage.waitForNoRoles()
  const sockets = await openSockets(watched.pid)
  return {
    ...{ stage, path, server },
    nothingLeft: (timeout) => nothingLeft(watched, sockets, timeout),
    async [Symbol.asyncDispose]() {
      await stage.close()
      await path[Symbol.asyncDispose]()
    },
  }
}
