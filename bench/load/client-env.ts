/** The environment of libpq's programs: everything said, nothing taken from whoever runs the bench. */
import type { Address } from '../contestants/contestant.ts'

export function clientEnv({ port, user, password, database, tls }: Address): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'],
    PGHOST: '127.0.0.1',
    PGPORT: String(port),
    PGUSER: user,
    PGDATABASE: database,
    PGPASSWORD: password,
    PGSSLMODE: tls ? 'require' : 'disable',
    PGGSSENCMODE: 'disable',
    PGPASSFILE: '/dev/null',
    PSQLRC: '/dev/null',
  }
}
