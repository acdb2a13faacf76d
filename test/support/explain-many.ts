/** Many runs of `pgusher explain` in one process. Argument: a JSON file with the command lines. A record separator follows each answer. */
import { readFile } from 'node:fs/promises'
import { run } from '../../src/cli/program.ts'

const commandLines = JSON.parse(await readFile(process.argv[2] ?? '', 'utf8')) as string[][]
for (const commandLine of commandLines) {
  await run(commandLine)
  process.stdout.write('\x1e')
}
process.exitCode = 0
