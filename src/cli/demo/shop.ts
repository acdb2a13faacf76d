/** What an operator prepares on a PostgreSQL that pgusher is to stand before: a database, two group roles, an admin that mints. */
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { type Upstream, upstreamClient } from './upstream-url.ts'

export interface Shop {
  database: string
  /** Owns the schema. */
  migrator: string
  /** Reads it. */
  reader: string
  admin: { user: string; password: string }
  /** Of the login roles that pgusher will mint. */
  prefix: string
}

/** Names for a server that is ours alone. */
export function ownShop(): Shop {
  return {
    database: 'shop',
    migrator: 'shop_migrator',
    reader: 'shop_reader',
    admin: { user: 'pgusher_admin', password: randomBytes(18).toString('base64url') },
    prefix: 'pgu_',
  }
}

/** Names that no other demo and no other pgusher on that server has. */
export function guestShop(): Shop {
  const tag = `pgudemo${randomBytes(2).toString('hex')}`
  return {
    database: `${tag}_shop`,
    migrator: `${tag}_migrator`,
    reader: `${tag}_reader`,
    admin: { user: `${tag}_admin`, password: randomBytes(18).toString('base64url') },
    prefix: `${tag}x_`,
  }
}

const q = pg.escapeIdentifier

/** One connection of the superuser for the time of `work`. */
export async function asSuperuser<T>(
  upstream: Upstream,
  database: string | undefined,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(upstreamClient(upstream, database))
  client.on('error', () => {})
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

/** @throws the server's error, e.g. where the URL's user is no superuser */
export async function createShop(upstream: Upstream, shop: Shop): Promise<void> {
  const { database, migrator, reader, admin } = shop
  await asSuperuser(upstream, undefined, async (client) => {
    const { rows } = await client.query<{ version: number; super: boolean }>(
      `SELECT current_setting('server_version_num')::int AS version, rolsuper AS super
       FROM pg_roles WHERE rolname = current_user`,
    )
    if (rows[0]?.super !== true) throw new Error(`${upstream.user} is no superuser of ${upstream.host}`)
    // From 16 on the admin hands out roles without having what they may do; before, ADMIN OPTION came with membership.
    const option = rows[0].version >= 160_000 ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' : 'WITH ADMIN OPTION'
    await client.query(`
      CREATE ROLE ${q(migrator)} NOLOGIN;
      CREATE ROLE ${q(reader)} NOLOGIN;
      CREATE ROLE ${q(admin.user)} LOGIN CREATEROLE PASSWORD ${pg.escapeLiteral(admin.password)};
      GRANT ${q(migrator)}, ${q(reader)} TO ${q(admin.user)} ${option}`)
    await client.query(`CREATE DATABASE ${q(database)}`)
  })
  await asSuperuser(upstream, database, (client) =>
    client.query(`
      ALTER SCHEMA public OWNER TO ${q(migrator)};
      REVOKE CREATE ON SCHEMA public FROM PUBLIC;
      SET ROLE ${q(migrator)};
      CREATE TABLE public.orders (id int PRIMARY KEY, item text NOT NULL, price numeric(8, 2) NOT NULL);
      INSERT INTO public.orders VALUES (1, 'tea', 3.20), (2, 'coffee', 4.10), (3, 'cocoa', 3.90);
      GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${q(reader)};
      ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO ${q(reader)}`),
  )
}

/** Everything that `createShop` made, as far as it came, and login roles that pgusher could not take back. */
export async function removeShop(upstream: Upstream, shop: Shop): Promise<void> {
  await asSuperuser(upstream, undefined, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${q(shop.database)} WITH (FORCE)`)
    const roles = [...(await mintedRoles(client, shop.prefix)), shop.admin.user, shop.reader, shop.migrator]
    for (const role of roles) await client.query(`DROP ROLE IF EXISTS ${q(role)}`)
  })
}

/** Login roles of pgusher's that are there now. */
export async function mintedRoles(client: pg.Client, prefix: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    'SELECT rolname::text AS name FROM pg_roles WHERE starts_with(rolname::text, $1) ORDER BY 1',
    [prefix],
  )
  return rows.map(({ name }) => name)
}
