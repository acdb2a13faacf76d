/** Which servers of Debian's are installed here. */
import { existsSync } from 'node:fs'

/** With the directory of `initdb` and `postgres`. */
export function debianVersions(): { version: number; binDir: string }[] {
  return [14, 15, 16, 17]
    .map((version) => ({ version, binDir: `/usr/lib/postgresql/${version}/bin` }))
    .filter(({ binDir }) => existsSync(`${binDir}/initdb`))
}
