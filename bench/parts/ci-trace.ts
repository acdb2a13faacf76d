/** The mix that pgusher is there for: jobs that migrate, load, test and dump, with the programs that jobs use. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Address, Contestant, Variant } from '../contestants/contestant.ts'
import { clientProgram, psql } from '../load/psql.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'
import { versionOf } from '../processes.ts'
import { TAKING_PART } from './select.ts'

interface Size {
  jobs: number
  /** Rows of 100 bytes. */
  rows: number
  statements: number
}

const FULL: Size = { jobs: 8, rows: 200_000, statements: 3_000 }
const QUICK: Size = { jobs: 8, rows: 20_000, statements: 300 }
const WARM: Size = { jobs: 2, rows: 20_000, statements: 300 }
const DDL = 60
const ROW_BYTES = 100

/** Sixty statements: a schema, tables that refer to each other, indexes, columns, constraints, a view. */
export function migration(schema: string): string {
  const tables = Array.from({ length: 14 }, (_, index) => {
    const name = `${schema}.t${index}`
    const parent = index === 0 ? '' : ` REFERENCES ${schema}.t${index - 1} (id)`
    return [
      `CREATE TABLE ${name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent bigint${parent}, name text NOT NULL)`,
      `CREATE INDEX ON ${name} (parent)`,
      `ALTER TABLE ${name} ADD COLUMN created_at timestamptz NOT NULL DEFAULT now()`,
      `COMMENT ON TABLE ${name} IS 'made by migration ${index}'`,
    ]
  })
  const items = [
    `CREATE TABLE ${schema}.items (id int PRIMARY KEY, k int NOT NULL, v text NOT NULL)`,
    `CREATE VIEW ${schema}.recent AS SELECT id, v FROM ${schema}.items WHERE k > 10`,
    `CREATE TABLE ${schema}.schema_version (version int PRIMARY KEY)`,
  ]
  return [`CREATE SCHEMA ${schema}`, ...tables.flat(), ...items].map((statement) => `${statement};\n`).join('')
}

/** A job of one run, with a schema that no other has: others may be warming up at the same time. */
interface Job {
  address: Address
  schema: string
  migration: string
  tests: string
}

const rowsFile = ({ stage }: Bench, rows: number): string => join(stage.scratch, `ci-${rows}.txt`)

/** Six connections, one after the other; pgbench makes one more than its client's, to look at the server first. */
async function runJob(
  { address, schema, migration: file, tests }: Job,
  { statements, rows }: Size,
  bench: Bench,
): Promise<void> {
  await psql(address, `SELECT to_regnamespace('${schema}')`)
  await clientProgram('psql', address, ['-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-f', file])
  await psql(address, `COPY ${schema}.items FROM STDIN`, rowsFile(bench, rows))
  const load = ['--no-vacuum', '--protocol=prepared', `--transactions=${statements}`, `--define=rows=${rows}`]
  await clientProgram('pgbench', address, [...load, `--file=${tests}`])
  await clientProgram('pg_dump', address, [`--schema=${schema}`, '--file=/dev/null'])
}

async function prepareJob(contestant: Contestant, variant: Variant, job: number, bench: Bench): Promise<Job> {
  const schema = `ci_${job}`
  const [migrationFile, tests] = ['sql', 'pgbench'].map((suffix) => join(bench.stage.scratch, `${schema}.${suffix}`))
  await writeFile(migrationFile!, migration(schema))
  await writeFile(tests!, `\\set id random(1, :rows)\nSELECT v FROM ${schema}.items WHERE id = :id;\n`)
  return { address: await contestant.address(variant, job), schema, migration: migrationFile!, tests: tests! }
}

async function trace(contestant: Contestant, variant: Variant, size: Size, bench: Bench): Promise<Figures> {
  const first = Math.floor(Math.random() * 1e9)
  const numbers = Array.from({ length: size.jobs }, (_, index) => first + index)
  const jobs = await Promise.all(numbers.map((job) => prepareJob(contestant, variant, job, bench)))
  try {
    const { cpu, wall } = await measured(
      contestant,
      () => Promise.all(jobs.map((job) => runJob(job, size, bench))),
      () => ({ events: size.jobs * (size.statements + DDL), credentials: true }),
    )
    return known({ cpu_s: cpu, wall_s: wall })
  } finally {
    // As the superuser, since they belong to whoever a contestant logs in as.
    for (const { schema } of jobs) await bench.stage.admin(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
    await Promise.all(jobs.flatMap(({ migration: file, tests }) => [rm(file), rm(tests)]))
  }
}

/** Lines of exactly ROW_BYTES. */
async function writeRows(bench: Bench, rows: number): Promise<void> {
  const lines = Array.from(
    { length: rows },
    (_, row) => `${`${row + 1}\t${row % 1_000}\t`.padEnd(ROW_BYTES - 1, 'item ')}\n`,
  )
  await writeFile(rowsFile(bench, rows), lines.join(''))
}

const major = (version: string): number => Number(/(\d+)/.exec(version)?.[1])

export const ciTrace: Part = {
  name: 'ci-trace',
  title: 'Eight jobs at once: migrate, load, test, dump',
  ...{ rounds: 3, budget: 200, warm: true },
  async prepare(bench) {
    const dump = await versionOf('pg_dump', '--version')
    if (dump === undefined) return 'pg_dump is not installed (apt-get install postgresql-client)'
    if (major(dump) < major(bench.stage.version)) return `${dump} does not dump PostgreSQL ${bench.stage.version}`
    for (const { rows } of new Set([QUICK, bench.quick ? QUICK : FULL])) await writeRows(bench, rows)
    return undefined
  },
  cases: ({ quick }) =>
    (['plain', 'tls'] as const).map(
      (variant): Case => ({
        name: variant,
        contestants: [...TAKING_PART[variant], 'pgusher-cold'],
        run: (contestant, bench) => trace(contestant, variant, quick ? QUICK : FULL, bench),
        warmUp: (contestant, bench) => trace(contestant, variant, WARM, bench),
      }),
    ),
}
