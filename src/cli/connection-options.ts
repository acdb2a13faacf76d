/** The options of commands that connect to a pgusher as the CI job that they run in. */
import { resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { parseServerAddress, type ServerAddress } from '../client/server-address.ts'
import type { TokenSourceOptions } from '../client/token-source.ts'

export interface ConnectionOptions {
  server: ServerAddress
  ca?: string
  database: string
  user: string
  audience?: string
  tokenFile?: string
  tokenCommand?: string
  tokenEnv?: string
}

export function connectionCommand(name: string): Command {
  const command = new Command(name)
    .requiredOption('-s, --server <host[:port]>', 'pgusher; port 6432 without one', serverAddress)
    .requiredOption('-d, --database <name>', 'the entry of databases that the job asks for')
    .requiredOption('-u, --user <name>', 'the role that the job asks for, or ci for the only one that it may use')
  return withTokenOptions(command)
}

/** How the server is verified, and where the token comes from. */
export function withTokenOptions(command: Command): Command {
  return command
    .option('--ca <file>', "PEM file of the CA that signed pgusher's certificate; the system's CAs without it")
    .option('--audience <text>', 'the audience to ask the CI system for; without it pgusher is asked')
    .addOption(new Option('--token-file <file>', 'a file that holds the token').conflicts(['tokenCommand', 'tokenEnv']))
    .addOption(new Option('--token-command <line>', 'a shell command that prints a token').conflicts('tokenEnv'))
    .option('--token-env <name>', 'a variable that holds the token')
}

export function serverAddress(text: string): ServerAddress {
  const address = parseServerAddress(text)
  if (address === undefined) throw new InvalidArgumentError('host, host:port or [ipv6]:port is wanted')
  return address
}

export function tokenSourceOptions({ tokenFile, tokenCommand, tokenEnv }: ConnectionOptions): TokenSourceOptions {
  return { env: process.env, tokenFile, tokenCommand, tokenEnv }
}

export function caFile({ ca }: ConnectionOptions): string | undefined {
  return ca === undefined ? undefined : resolve(ca)
}
