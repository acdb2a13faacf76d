/** The SQL of docs/postgresql.md, run as it stands there, does what the text around it says: for the tables' owner and for others. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PostgresServer, postgresVersions, urlFor, withClient } from './support/postgres.ts'

const text = readFileSync(new URL('../docs/postgresql.md', import.meta.url), 'utf8')
const snippets = [...text.matchAll(/^```sql\n([\s\S]*?)^```$/gm)].map(([, body = '']) => body)

function snippet(part: string): string {
  const [found, ...others] = snippets.filter((body) => body.includes(part))
  if (found === undefined || others.length > 0) throw new Error(`not one snippet with ${part}`)
  return found
}

const PASSWORD = 'of-the-test'
const MAIN = 'https://ci.acme.example/runs/1'
const BRANCH = 'https://ci.acme.example/runs/2'

/** Logins as pgusher makes them; a group role that owns the tables, and one that may change rows only. */
const PREPARED = `
  CREATE ROLE shop_migrator; CREATE ROLE shop_writer;
  CREATE ROLE pgu_main LOGIN PASSWORD '${PASSWORD}' IN ROLE shop_migrator, shop_writer;
  CREATE ROLE pgu_branch LOGIN PASSWORD '${PASSWORD}' IN ROLE shop_migrator, shop_writer;
  COMMENT ON ROLE pgu_main IS '{"ref":"refs/heads/main","url":"${MAIN}"}';
  COMMENT ON ROLE pgu_branch IS '{"ref":"refs/heads/fix-1","url":"${BRANCH}"}';
  ALTER SCHEMA public OWNER TO shop_migrator;
  CREATE SCHEMA scratch AUTHORIZATION shop_writer;
  SET ROLE shop_migrator;
  CREATE TABLE orders (id int PRIMARY KEY, item text);
  CREATE TABLE prices (id int PRIMARY KEY, price int);
  INSERT INTO orders VALUES (1, 'tea'); INSERT INTO prices VALUES (1, 10);
  GRANT SELECT, INSERT, UPDATE, DELETE ON orders, prices TO shop_writer;`

describe.each(postgresVersions())('the SQL of docs/postgresql.md on PostgreSQL $version', ({ start }) => {
  let server: PostgresServer

  beforeAll(async () => {
    server = await start()
    await withClient(server.superuserUrl, (client) => client.query(PREPARED))
    await as('pgu_main', 'shop_migrator', snippet('create function current_job()'))
  })
  afterAll(() => server.stop())

  /** What PostgreSQL says to each statement: rows, their count, or a SQLSTATE. */
  async function as(login: string, role: string, ...statements: string[]): Promise<unknown[]> {
    return withClient(urlFor(server.superuserUrl, { user: login, password: PASSWORD }), async (client) => {
      await client.query(`SET ROLE ${role}`)
      const answers: unknown[] = []
      for (const sql of statements) {
        const answer = await client.query(sql).catch((error: { code: string }) => error.code)
        answers.push(typeof answer === 'string' ? answer : answer.rows?.length ? answer.rows : answer.rowCount)
      }
      return answers
    })
  }

  test('a row says which job wrote it; rows that were there name none', async () => {
    await as('pgu_main', 'shop_migrator', snippet('add column written_by'))
    await as(
      'pgu_branch',
      'shop_writer',
      `INSERT INTO orders VALUES (2, 'coffee')`,
      `INSERT INTO orders VALUES (3, 'cocoa', 'somebody else')`,
    )
    expect(await as('pgu_main', 'shop_writer', 'SELECT id, written_by FROM orders ORDER BY id')).toEqual([
      [
        { id: 1, written_by: null },
        { id: 2, written_by: BRANCH },
        { id: 3, written_by: 'somebody else' },
      ],
    ])
  })

  test('the trigger binds it, whatever the job writes and whatever its search path finds first', async () => {
    await as('pgu_main', 'shop_migrator', snippet('create trigger written_by'))
    const forged = `CREATE FUNCTION scratch.current_job() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"url":"forged"}'::jsonb $$`
    const answers = await as(
      'pgu_branch',
      'shop_writer',
      forged,
      'SET search_path = scratch, public',
      `INSERT INTO orders VALUES (4, 'mate', 'somebody else') RETURNING written_by`,
      `UPDATE orders SET written_by = 'somebody else' WHERE id = 1 RETURNING written_by`,
    )
    expect(answers.slice(2)).toEqual([[{ written_by: BRANCH }], [{ written_by: BRANCH }]])
  })

  test('only jobs of main change prices, as owner and as another; the owner can switch it off', async () => {
    await as('pgu_main', 'shop_migrator', snippet('row level security'))
    const change = [
      'SELECT id FROM prices',
      'INSERT INTO prices VALUES (2, 20)',
      'UPDATE prices SET price = 0',
      'DELETE FROM prices WHERE id = 2',
    ]
    for (const role of ['shop_migrator', 'shop_writer']) {
      expect(await as('pgu_branch', role, ...change)).toEqual([[{ id: 1 }], '42501', 0, 0])
      expect(await as('pgu_main', role, ...change)).toEqual([[{ id: 1 }], 1, 2, 1])
    }
    expect(await as('pgu_branch', 'shop_writer', 'TRUNCATE prices')).toEqual(['42501'])
    const off = ['ALTER TABLE prices DISABLE ROW LEVEL SECURITY', 'DELETE FROM prices']
    expect(await as('pgu_branch', 'shop_writer', ...off)).toEqual(['42501', 0])
    expect(await as('pgu_branch', 'shop_migrator', 'BEGIN', ...off, 'ROLLBACK')).toEqual([null, null, 1, null])
    expect(await as('pgu_branch', 'shop_migrator', 'BEGIN', 'TRUNCATE prices', 'ROLLBACK')).toEqual([null, null, null])
  })
})
