/** A file with a token: read anew for each connection, because a kubelet replaces it before it ends. */
import { open } from 'node:fs/promises'
import { quote } from '../../config/quote.ts'
import { reason } from '../../config/read-file.ts'
import { MAX_TOKEN_BYTES } from '../../identity/token.ts'
import { noToken } from '../token-text.ts'

/** @throws AccessError `token_missing` where it cannot be read */
export async function readTokenFile(file: string, hint?: string): Promise<string> {
  try {
    await using handle = await open(file, 'r')
    // One byte more than a token has, so that a larger file is seen as that; a pipe gives what it has.
    const buffer = Buffer.alloc(MAX_TOKEN_BYTES + 1)
    let length = 0
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    return buffer.toString('utf8', 0, length)
  } catch (thrown) {
    throw noToken(`the file ${quote(file)} with the token cannot be read: ${reason(thrown)}`, hint, thrown)
  }
}
