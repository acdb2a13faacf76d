/**
 * Whole tables and databases out of one session and into another: by COPY everywhere, by `pg_dump | psql` where Debian's server is
 * installed.
 */
import { pipeline } from 'node:stream/promises'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import { expect, test } from 'vitest'
import { jobEnvironment, output } from '../support/commands.ts'
import { databaseEntry, RULES, startStage } from '../support/pgusher.ts'
import { postgresVersions, setupShop, urlFor, withClient } from '../support/postgres.ts'
import { statementsOf } from '../support/statement-events.ts'

test('a table of 10 MB from one session into another by COPY in binary, byte for byte', async () => {
  await using stage = await startStage()
  const token = await stage.token()
  const columns = `g, repeat(md5(g::text), 30), decode(md5(g::text), 'hex'), g / 7.0, NULL::text`
  const digest = `select count(*)::int as n, md5(string_agg(t::text, '|' order by g)) as md5 from`
  await stage.session({ token }, (from) =>
    stage.session({ token }, async (to) => {
      await to.query(`create temp table t as select ${columns} from generate_series(1, 0) g`)
      const out = from.query(
        copyTo(`copy (select ${columns} from generate_series(1, 10000) g) to stdout (format binary)`),
      )
      await pipeline(out, to.query(copyFrom('copy t from stdin (format binary)')))
      const [expected, got] = await Promise.all([
        from.query(`${digest} (select ${columns} from generate_series(1, 10000) g) t`),
        to.query(`${digest} t`),
      ])
      expect(got.rows).toEqual(expected.rows)
      expect(got.rows[0].n).toBe(10_000)
    }),
  )
})

/** pg_dump refuses a server newer than itself, so it is that of the installed server's package. */
const installed = postgresVersions().filter(({ version }) => version < 18)

test.each(installed)('a database of 50 MB is reproduced exactly, PostgreSQL $version', async ({ version, start }) => {
  const binDir = `/usr/lib/postgresql/${version}/bin`
  const server = await start()
  const shop = await setupShop(server)
  await withClient(server.superuserUrl, (client) => client.query('CREATE DATABASE copied OWNER shop_migrator'))
  await withClient(urlFor(server.superuserUrl, { database: 'shop' }), fill)
  const stage = await startStage({
    upstream: { server, shop },
    databases: { copied: databaseEntry(server, shop, 'copied') },
    rules: RULES.map((rule) =>
      rule.allow === undefined
        ? rule
        : {
            ...rule,
            // libpq's large objects, which pg_dump reads, are FunctionCalls.
            allow: { ...rule.allow, database: ['shop-prod', 'copied', 'warehouse'], function_call: true },
          },
    ),
  })
  const token = await stage.token()
  const from = jobEnvironment(stage, { token })
  const quiet = '-X -q -v ON_ERROR_STOP=1 -o /dev/null'
  const command = `${binDir}/pg_dump | PGDATABASE=copied ${binDir}/psql ${quiet}`
  await output(['bash', '-o', 'pipefail', '-c', command], from)

  // Told apart by nothing, past pgusher. \restrict carries a random key.
  const whole = async (database: string): Promise<string> => {
    const { password } = new URL(server.superuserUrl)
    const env = {
      ...from,
      PGPORT: String(server.port),
      PGUSER: 'postgres',
      PGSSLMODE: 'disable',
      PGPASSWORD: password,
    }
    const text = await output([`${binDir}/pg_dump`, '--no-owner', database], { ...env, PGDATABASE: database })
    return text.replaceAll(/^\\(un)?restrict .*$/gm, '')
  }
  const [original, copy] = await Promise.all([whole('shop'), whole('copied')])
  expect(original.length).toBeGreaterThan(50_000_000)
  expect(copy === original).toBe(true)

  const ports = (await stage.events('session.started')).map((event) => (event['client'] as { port: number }).port)
  expect(ports).toHaveLength(2)
  const statements = (await Promise.all(ports.map((port) => statementsOf(stage, port)))).flat()
  expect(statements.every(({ outcome }) => outcome === 'success')).toBe(true)
  const sum = (counts: (number | undefined)[]) => counts.reduce<number>((total, count) => total + (count ?? 0), 0)
  const of = (protocol: string) => statements.filter((statement) => statement.protocol === protocol)
  expect(sum(of('copy_out').map(({ rows }) => rows))).toBe(100_003 + 1)
  expect(sum(of('copy_in').map(({ affected }) => affected))).toBe(100_003 + 1)
  expect(of('function').length).toBeGreaterThan(0)
  await stage.close()
  await server.stop()
})

/** 50 MB of rows with awkward text, and objects of each kind that an application has. */
async function fill(client: { query(sql: string): Promise<unknown> }): Promise<void> {
  await client.query(`
    SET ROLE shop_migrator;
    CREATE TABLE public.big (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, raw bytea, at timestamptz, n numeric);
    INSERT INTO public.big (body, raw, at, n)
      SELECT repeat(md5(g::text), 14) || E'\\t\\n\\\\ "quoted" ''single'' ü ☃', decode(md5(g::text), 'hex'),
        timestamptz '2026-01-01' + g * interval '1 second', CASE g % 3 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' ELSE g / 7.0 END
      FROM generate_series(1, 100000) g;
    CREATE TABLE public.lines (order_id int REFERENCES public.orders, note text DEFAULT 'none', CHECK (note <> ''));
    INSERT INTO public.lines VALUES (1, NULL);
    CREATE INDEX ON public.big (at);
    CREATE VIEW public.recent AS SELECT id, body FROM public.big WHERE at > '2026-01-02';
    CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'it''s $$ fine');
    CREATE FUNCTION public.half(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 / 2 -- ; ' $$;
    CREATE SEQUENCE public.tickets START 77;
    SELECT nextval('public.tickets');
    SELECT lo_from_bytea(0, decode(repeat('00ff0a', 20000), 'hex'));
    RESET ROLE`)
}
