/** Reading configuration files with a cap, and the globs of `include`. */
import { glob, open, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/** A policy is written by people; a larger file is a mistake, such as a path to a log. */
export const MAX_FILE_BYTES = 1024 * 1024

export type FileText = { ok: true; text: string; bytes: Buffer } | { ok: false; problem: string }

/** The text of a file, of a pipe too. UTF-8 only; a byte order mark is dropped from the text. */
export async function readConfigFile(file: string): Promise<FileText> {
  let bytes: Buffer
  try {
    bytes = await readCapped(file)
  } catch (thrown) {
    return { ok: false, problem: `cannot be read: ${reason(thrown)}` }
  }
  if (bytes.length > MAX_FILE_BYTES) return { ok: false, problem: 'is larger than 1 MiB' }
  try {
    return { ok: true, text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), bytes }
  } catch {
    return { ok: false, problem: 'is not valid UTF-8' }
  }
}

async function readCapped(file: string): Promise<Buffer> {
  await using handle = await open(file, 'r')
  const buffer = Buffer.alloc(MAX_FILE_BYTES + 1)
  let length = 0
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return buffer.subarray(0, length)
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of its path is not a directory',
}

/** Why a file operation failed, without the path, which the caller names. */
export function reason(thrown: unknown): string {
  const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : 'unknown error'
  return REASONS[code] ?? code
}

/** Undefined when the file can be opened for reading. */
export async function unreadable(file: string): Promise<string | undefined> {
  try {
    const handle = await open(file, 'r')
    const found = await handle.stat()
    await handle.close()
    return found.isDirectory() ? 'it is a directory' : undefined
  } catch (thrown) {
    return reason(thrown)
  }
}

/** Files that a pattern of `include` names, absolute, in the order of their names; never the including file itself. */
export async function includedFiles(pattern: string, mainFile: string): Promise<string[]> {
  const base = dirname(resolve(mainFile))
  const found = new Set<string>()
  for await (const name of glob(pattern, { cwd: base })) {
    const path = resolve(base, name)
    // A dangling link stays, and is reported when it is read: a rule file that is not there must not go unnoticed.
    if (path !== resolve(mainFile) && (await isFileOrMissing(path))) found.add(path)
  }
  return [...found].sort((a, b) => (a < b ? -1 : 1))
}

async function isFileOrMissing(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch {
    return true
  }
}
