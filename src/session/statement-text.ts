/** Takes a statement's text out of a Query or Parse, whole or cut, without ever holding more than the cap. */
import { isAscii } from 'node:buffer'
import { createHash, type Hash, hash } from 'node:crypto'
import type { StatementText } from './name-map.ts'

/** Characters of a statement that are kept; PostgreSQL documentation: query texts have no limit below 1 GB. */
export const MAX_TEXT_BYTES = 64 * 1024

/** How text of the session's client_encoding becomes a string. */
export type TextDecoderFunction = (buffer: Buffer, start: number, end: number) => string

const utf8: TextDecoderFunction = (buffer, start, end) => buffer.toString('utf8', start, end)
const latin1: TextDecoderFunction = (buffer, start, end) => buffer.toString('latin1', start, end)

/** PostgreSQL's encoding names that are not the WHATWG label with other punctuation. */
const LABELS: Readonly<Record<string, string>> = {
  SJIS: 'shift_jis',
  SHIFT_JIS_2004: 'shift_jis',
  BIG5: 'big5',
  GBK: 'gbk',
  GB18030: 'gb18030',
  UHC: 'euc-kr',
  JOHAB: 'euc-kr',
  EUC_JP: 'euc-jp',
  EUC_JIS_2004: 'euc-jp',
  EUC_KR: 'euc-kr',
  EUC_CN: 'gbk',
  KOI8R: 'koi8-r',
  KOI8U: 'koi8-u',
  WIN866: 'ibm866',
  LATIN2: 'iso-8859-2',
  LATIN3: 'iso-8859-3',
  LATIN4: 'iso-8859-4',
  LATIN5: 'windows-1254',
  LATIN6: 'iso-8859-10',
  LATIN7: 'iso-8859-13',
  LATIN8: 'iso-8859-14',
  LATIN9: 'iso-8859-15',
  LATIN10: 'iso-8859-16',
}

/** @param encoding as in the ParameterStatus `client_encoding`. */
export function decoderFor(encoding: string): TextDecoderFunction {
  if (encoding === 'UTF8' || encoding === 'SQL_ASCII') return utf8
  if (encoding === 'LATIN1') return latin1
  const label =
    LABELS[encoding] ??
    encoding
      .replace(/^WIN(\d+)$/, 'windows-$1')
      .replace(/^ISO_8859_/, 'iso-8859-')
      .toLowerCase()
  try {
    const decoder = new TextDecoder(label)
    return (buffer, start, end) => {
      const bytes = buffer.subarray(start, end)
      // ASCII is ASCII in every encoding of PostgreSQL. To ICU's Shift_JIS three of its control characters are others.
      return isAscii(bytes) ? latin1(buffer, start, end) : decoder.decode(bytes)
    }
  } catch {
    return latin1
  }
}

/** A text that lies whole in the buffer. Its hash is that of its bytes: made here where the text, as UTF-8, would be others. */
export function wholeText(decode: TextDecoderFunction, buffer: Buffer, start: number, end: number): StatementText {
  const text = decode(buffer, start, end)
  const same = decode === utf8 ? !text.includes('\ufffd') : isAscii(buffer.subarray(start, end))
  const sha256 = same ? undefined : hash('sha256', buffer.subarray(start, end), 'hex')
  return { text, bytes: end - start, sha256, truncated: false }
}

/** A text longer than the cap, hashed and counted as it passes. */
export interface LongText {
  /** Takes the next bytes up to the text's NUL. Returns how many it took; fewer than given once the NUL was met. */
  add(buffer: Buffer, start: number, end: number): number
  readonly ended: boolean
  finish(): StatementText
}

export function createLongText(decode: TextDecoderFunction): LongText {
  const digest: Hash = createHash('sha256')
  let text: string | undefined
  let bytes = 0
  let ended = false
  return {
    add(buffer, start, end) {
      if (ended) return 0
      const nul = buffer.subarray(start, end).indexOf(0)
      const stop = nul < 0 ? end : start + nul
      const part = buffer.subarray(start, stop)
      text ??= decode(buffer, start, Math.min(stop, start + MAX_TEXT_BYTES))
      digest.update(part)
      bytes += part.length
      ended = nul >= 0
      return ended ? part.length + 1 : part.length
    },
    get ended() {
      return ended
    },
    finish: () => ({ text, bytes, sha256: digest.digest('hex'), truncated: true }),
  }
}
