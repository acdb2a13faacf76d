/** What tests do with a running server; usable outside vitest too. */
import pg from 'pg'
import type { PostgresServer } from '../../src/cli/demo/embedded-postgres.ts'

export type { PostgresServer } from '../../src/cli/demo/embedded-postgres.ts'

/** The same URL for another database, user or password. */
export function urlFor(url: string, change: { database?: string; user?: string; password?: string }): string {
  const changed = new URL(url)
  if (change.database !== undefined) changed.pathname = `/${encodeURIComponent(change.database)}`
  if (change.user !== undefined) changed.username = encodeURIComponent(change.user)
  if (change.password !== undefined) changed.password = encodeURIComponent(change.password)
  return changed.href
}

/** One connection for the time of `work`. */
export async function withClient<T>(
  options: string | pg.ClientConfig,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(typeof options === 'string' ? { connectionString: options } : options)
  // A server that ends the session says so here too; the query that runs into it reports it.
  client.on('error', () => {})
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

/** Rows of one query on a connection of its own. */
export async function query<Row extends pg.QueryResultRow = Record<string, unknown>>(
  url: string,
  sql: string,
  parameters: unknown[] = [],
): Promise<Row[]> {
  return withClient(url, async (client) => (await client.query<Row>(sql, parameters)).rows)
}

/** Resolves with what `probe` returns as soon as it is neither undefined nor false. @throws Error after `timeout` ms. */
export async function eventually<T>(probe: () => Promise<T>, timeout = 20_000): Promise<Exclude<T, undefined | false>> {
  const deadline = Date.now() + timeout
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>
    if (Date.now() > deadline) throw new Error(`not seen within ${timeout} ms: ${probe}`)
    await new Promise((next) => setTimeout(next, 20))
  }
}

export interface Shop {
  /** `shop` and `warehouse`; both have public.orders with three rows and public owned by shop_migrator. */
  databases: readonly ['shop', 'warehouse']
  admin: { user: string; password: string }
  /** Group roles without login. */
  migrator: 'shop_migrator'
  reader: 'shop_reader'
}

/** What an operator prepares: databases, group roles, and an admin that is no superuser. Once a server. */
export async function setupShop(server: PostgresServer): Promise<Shop> {
  const password = 'admin-secret-of-the-test'
  await withClient(server.superuserUrl, async (client) => {
    const [row] = (
      await client.query<{ version: number }>(`SELECT current_setting('server_version_num')::int AS version`)
    ).rows
    // From 16 on the admin can hand out a role without having its privileges; before, ADMIN OPTION cannot be without them.
    const options = (row?.version ?? 0) >= 160_000 ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' : 'WITH ADMIN OPTION'
    await client.query(`
      CREATE ROLE shop_migrator NOLOGIN;
      CREATE ROLE shop_reader NOLOGIN;
      CREATE ROLE pgusher_admin LOGIN CREATEROLE PASSWORD '${password}';
      GRANT shop_migrator, shop_reader TO pgusher_admin ${options};`)
    await client.query('CREATE DATABASE shop')
    await client.query('CREATE DATABASE warehouse')
  })
  for (const database of ['shop', 'warehouse']) {
    await withClient(urlFor(server.superuserUrl, { database }), async (client) => {
      await client.query(`
        ALTER SCHEMA public OWNER TO shop_migrator;
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        SET ROLE shop_migrator;
        CREATE TABLE public.orders (id int PRIMARY KEY, item text NOT NULL);
        INSERT INTO public.orders VALUES (1, 'tea'), (2, 'coffee'), (3, 'cocoa');
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_reader;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO shop_reader;
        RESET ROLE`)
    })
  }
  return {
    databases: ['shop', 'warehouse'],
    admin: { user: 'pgusher_admin', password },
    migrator: 'shop_migrator',
    reader: 'shop_reader',
  }
}
