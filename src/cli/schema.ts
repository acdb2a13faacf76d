/** `pgusher schema`. */
import { Command } from 'commander'
import { configJsonSchema } from '../config/json-schema.ts'

export function schemaCommand(): Command {
  return new Command('schema')
    .description("print the configuration's JSON Schema (draft 2020-12)")
    .addHelpText(
      'after',
      `
Examples:
  $ pgusher schema > pgusher.schema.json
  then, as the first line of the configuration, for editors that speak yaml-language-server:
  # yaml-language-server: $schema=./pgusher.schema.json`,
    )
    .action(() => {
      process.stdout.write(`${JSON.stringify(configJsonSchema(), null, 2)}\n`)
    })
}
