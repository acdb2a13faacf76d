/** Rows by the hundred megabytes: what a proxy costs that has nothing to decide any more. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Address, Contestant, Variant } from '../contestants/contestant.ts'
import { pgbench } from '../load/pgbench.ts'
import { psql } from '../load/psql.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'
import { DATABASE, GROUP } from '../stage.ts'
import { TAKING_PART } from './select.ts'

/** Bytes of a row as COPY writes it, with its newline; `small` has three columns of 7, 5 and 12 characters. */
const WIDE_BYTES = 1_001
const SMALL_BYTES = 27

interface Size {
  /** Rows of `bench_wide`, which is also what COPY in brings. */
  wide: number
  small: number
  /** Rows of a SELECT. */
  selected: number
}

const FULL: Size = { wide: 200_000, small: 6_000_000, selected: 1_000_000 }
const QUICK: Size = { wide: 50_000, small: 600_000, selected: 200_000 }
const WARM: Size = { wide: 10_000, small: 100_000, selected: 50_000 }

const inputFile = (bench: Bench, rows: number): string => join(bench.stage.scratch, `wide-${rows}.txt`)
const scriptFile = (bench: Bench, rows: number): string => join(bench.stage.scratch, `select-${rows}.sql`)

interface Load {
  name: string
  bytes(size: Size): number
  run(address: Address, bench: Bench, size: Size): Promise<unknown>
}

const LOADS: readonly Load[] = [
  {
    name: 'copy-out-1kb',
    bytes: ({ wide }) => wide * WIDE_BYTES,
    run: (address, _, { wide }) => psql(address, `COPY (SELECT * FROM bench_wide LIMIT ${wide}) TO STDOUT`),
  },
  {
    name: 'copy-out-small',
    bytes: ({ small }) => small * SMALL_BYTES,
    run: (address, _, { small }) => psql(address, `COPY (SELECT * FROM bench_small LIMIT ${small}) TO STDOUT`),
  },
  {
    name: 'select-small',
    bytes: ({ selected }) => selected * SMALL_BYTES,
    // psql would print them, which takes longer than to send them.
    run: (address, bench, { selected }) =>
      pgbench(
        address,
        {
          ...{ protocol: 'simple', clients: 1, amount: { transactions: 1 } },
          script: { file: scriptFile(bench, selected) },
        },
        bench.stage.scratch,
      ),
  },
  {
    name: 'copy-in',
    bytes: ({ wide }) => wide * WIDE_BYTES,
    run: (address, bench, { wide }) => psql(address, 'COPY bench_sink FROM STDIN', inputFile(bench, wide)),
  },
]

async function transfer(
  contestant: Contestant,
  variant: Variant,
  load: Load,
  bench: Bench,
  size: Size,
): Promise<Figures> {
  const address = await contestant.address(variant)
  const { cpu, wall } = await measured(
    contestant,
    () => load.run(address, bench, size),
    () => ({ events: 1 }),
  )
  const bytes = load.bytes(size)
  return known({ cpu_s_per_gb: cpu === undefined ? undefined : cpu / (bytes / 1e9), mb_per_s: bytes / 1e6 / wall })
}

export const bulk: Part = {
  name: 'bulk',
  title: 'COPY and SELECT of many rows, one session',
  ...{ rounds: 3, budget: 150, warm: true },
  async prepare(bench) {
    const { admin, server } = bench.stage
    const size = bench.quick ? QUICK : FULL
    await admin(`
      DROP TABLE IF EXISTS bench_wide, bench_small, bench_sink;
      CREATE UNLOGGED TABLE bench_wide AS
        SELECT left(repeat(md5(i::text), 32), ${WIDE_BYTES - 1}) AS v FROM generate_series(1, ${size.wide}) i;
      CREATE UNLOGGED TABLE bench_small AS
        SELECT 1000000 + i AS id, 10000 + i % 90000 AS k, left(md5(i::text), 12) AS v FROM generate_series(1, ${size.small}) i;
      CREATE UNLOGGED TABLE bench_sink (v text);
      GRANT SELECT, INSERT ON bench_wide, bench_small, bench_sink TO ${GROUP}`)
    const superuser = { port: server.port, user: 'postgres', password: new URL(server.superuserUrl).password }
    for (const { wide, selected } of [size, WARM]) {
      const file = inputFile(bench, wide)
      await psql(
        { ...superuser, database: DATABASE, tls: false },
        `\\copy (SELECT * FROM bench_wide LIMIT ${wide}) TO '${file}'`,
      )
      await writeFile(scriptFile(bench, selected), `SELECT * FROM bench_small LIMIT ${selected};\n`)
    }
    return undefined
  },
  cases: ({ quick }) =>
    (['plain', 'tls'] as const).flatMap((variant) =>
      LOADS.map((load): Case => {
        const transferOf =
          (size: Size): Case['run'] =>
          async (contestant, bench) => {
            const figures = await transfer(contestant, variant, load, bench, size)
            // Each begins with the same table. While warming up others may be writing to it, and TRUNCATE waits for them.
            if (load.name === 'copy-in') await bench.stage.admin('TRUNCATE bench_sink')
            return figures
          }
        return {
          name: `${load.name}/${variant}`,
          contestants: TAKING_PART[variant],
          run: transferOf(quick ? QUICK : FULL),
          warmUp: transferOf(WARM),
        }
      }),
    ),
}
