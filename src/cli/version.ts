/** `pgusher version`. */
import { readFileSync } from 'node:fs'
import { Command } from 'commander'

/** Of package.json, which lies two directories up from the source and from the built file alike. */
export function packageVersion(): string {
  const found: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const version = typeof found === 'object' && found !== null && 'version' in found ? found.version : undefined
  return typeof version === 'string' ? version : 'unknown'
}

export function versionCommand(): Command {
  return new Command('version')
    .description('print the versions of pgusher, Node and OpenSSL')
    .addHelpText('after', '\nExample:\n  $ pgusher version')
    .action(() => {
      process.stdout.write(
        `pgusher ${packageVersion()} (Node ${process.versions.node}, OpenSSL ${process.versions.openssl})\n`,
      )
    })
}
