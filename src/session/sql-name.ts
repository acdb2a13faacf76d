/** The name in PREPARE, DECLARE, DEALLOCATE and CLOSE, where it can be read for certain. */

/**
 * Only what begins with the command, without a comment, and names something that PostgreSQL folds as we do: in a text that reads
 * otherwise nobody but PostgreSQL knows which name is meant. ASCII throughout (no flag `u`, no `\s`): PostgreSQL takes U+00A0 for a
 * letter, and a case-insensitive match by Unicode takes the Kelvin sign for a K.
 */
const SPACE = '[ \\t\\n\\r\\f\\v]'
const IDENTIFIER = '("(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)'
const COMMANDS = {
  prepare: new RegExp(`^${SPACE}*PREPARE${SPACE}+${IDENTIFIER}(?=${SPACE}|[(])`, 'i'),
  declare: new RegExp(`^${SPACE}*DECLARE${SPACE}+${IDENTIFIER}(?=${SPACE})`, 'i'),
  deallocate: new RegExp(`^${SPACE}*DEALLOCATE${SPACE}+(?:PREPARE${SPACE}+)?${IDENTIFIER}${SPACE}*(?:;|$)`, 'i'),
  close: new RegExp(`^${SPACE}*CLOSE${SPACE}+${IDENTIFIER}${SPACE}*(?:;|$)`, 'i'),
}
/** NAMEDATALEN - 1: a longer name is cut between two characters, and which bytes those are depends on the server's encoding. */
const MAX_BYTES = 63

/** @returns undefined where the text does not tell for certain */
export function sqlName(text: string | undefined, command: keyof typeof COMMANDS): string | undefined {
  const identifier = COMMANDS[command].exec(text ?? '')?.[1]
  if (identifier === undefined) return undefined
  // PostgreSQL folds what is not quoted to lower case.
  const name = identifier.startsWith('"') ? identifier.slice(1, -1).replaceAll('""', '"') : identifier.toLowerCase()
  return Buffer.byteLength(name) <= MAX_BYTES ? name : undefined
}
