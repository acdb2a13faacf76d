/** A runner for the scripts of the recipe pages: programs that stand in for a CI's, each giving a token in the CI's own way. */
import { execFile } from 'node:child_process'
import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { writeFiles } from '../config/write-config.ts'

export const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.e30.c2ln'

const run = promisify(execFile)

const printing = (text: string) => `#!/bin/sh\nprintf '%s\\n' '${text}'\n`
const member = (name: string) => `printf '%s\\n' '${JSON.stringify({ [name]: TOKEN })}'`

const PROGRAMS: Readonly<Record<string, string>> = {
  psql: '#!/bin/sh\nprintf "psql %s %s\\n" "$1" "$DATABASE_URL"\n',
  pgusher: '#!/bin/sh\nprintf "%s\\0" "$@"\n',
  // The last key of a path, in JSON of one line: node would take longer to start than all the rest.
  jq: `#!/bin/sh
read -r json
key="\\"\${2##*.}\\":\\""
rest=\${json#*"$key"}
[ "$rest" != "$json" ] && printf '%s\\n' "$rest" | cut -d '"' -f 1
`,
  // Google's metadata server answers with the bare token. A secret on standard input is read: unread, it would end its writer.
  curl: `#!/bin/sh
case "$*" in
  *://metadata/*audience=*) printf %s '${TOKEN}' ;;
  *grant_type=client_credentials*) while read -r _; do :; done; ${member('access_token')} ;;
  *'api-version='*) ${member('oidcToken')} ;;
  *'&audience='*) ${member('value')} ;;
  *) exit 22 ;;
esac
`,
  // Semaphore's, which gets the repository.
  checkout: '#!/bin/sh\n',
  cat: printing(TOKEN),
  'spire-agent': printing(JSON.stringify([{ svids: [{ svid: TOKEN }] }])),
  ...Object.fromEntries(
    ['buildkite-agent', 'circleci', 'aws', 'your-token-command'].map((name) => [name, printing(TOKEN)]),
  ),
}

const TOKEN_VARIABLES = [
  'PG_ID_TOKEN',
  'BITBUCKET_STEP_OIDC_TOKEN',
  'SPACELIFT_OIDC_TOKEN',
  'SEMAPHORE_OIDC_TOKEN',
  'TFC_WORKLOAD_IDENTITY_TOKEN',
  'PLUGIN_OIDC_TOKEN_ID',
  'ID_TOKEN',
]
const OTHER_VARIABLES = [
  'ACTIONS_ID_TOKEN_REQUEST_TOKEN',
  'ACTIONS_ID_TOKEN_REQUEST_URL',
  'SYSTEM_ACCESSTOKEN',
  'SYSTEM_OIDCREQUESTURI',
  'OKTA_CLIENT_ID',
  'OKTA_CLIENT_SECRET',
  'ENTRA_CLIENT_SECRET',
]

/**
 * Runs scripts with nothing but these programs and variables; a variable that no CI gives ends one with an error. `psql`
 * prints its first argument and DATABASE_URL, `pgusher` its arguments, each with a NUL behind it.
 * @returns standard output of a script
 */
export async function createRunner(): Promise<(script: string) => Promise<string>> {
  const directory = await writeFiles(PROGRAMS)
  await Promise.all(Object.keys(PROGRAMS).map((name) => chmod(join(directory, name), 0o755)))
  const env = {
    PATH: `${directory}:/usr/bin:/bin`,
    ...Object.fromEntries(TOKEN_VARIABLES.map((name) => [name, TOKEN])),
    ...Object.fromEntries(OTHER_VARIABLES.map((name) => [name, 'https://ci.example/?a=b'])),
  }
  return async (script) =>
    (await run('bash', ['--norc', '-euo', 'pipefail', '-c', script], { env, cwd: directory })).stdout
}
