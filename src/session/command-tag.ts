/** The tag of CommandComplete ("Message Formats" in the PostgreSQL documentation), read from its bytes. */

export interface CommandTag {
  /** Rows that the command wrote; undefined for commands that return rows or have no count. */
  affectedRows: number | undefined
  /** Rows that COPY sent to the client, which are fewer than its messages where a header goes with them. */
  returnedRows: number | undefined
  ddl: boolean
  /** What the command did to the names that the tracker follows. */
  names: 'prepare' | 'declare' | 'deallocate' | 'discard' | 'close' | 'close_all' | undefined
}

const SELECT: CommandTag = { affectedRows: undefined, returnedRows: undefined, ddl: false, names: undefined }
const NAMES: Readonly<Record<string, CommandTag['names']>> = {
  PREPARE: 'prepare',
  'DECLARE CURSOR': 'declare',
  DEALLOCATE: 'deallocate',
  'DEALLOCATE ALL': 'discard',
  'DISCARD ALL': 'discard',
  'CLOSE CURSOR': 'close',
  'CLOSE CURSOR ALL': 'close_all',
}
const DDL = /^(CREATE|ALTER|DROP|TRUNCATE|COMMENT|SECURITY LABEL|IMPORT FOREIGN|REINDEX|REFRESH)\b/
const WRITES = /^(INSERT|UPDATE|DELETE|MERGE|COPY|MOVE|SELECT) (?:\d+ )?(\d+)$/

/** `buffer[start, end)` holds the tag and its NUL. @param copy the COPY that ran, if one did. */
export function parseCommandTag(
  buffer: Buffer,
  start: number,
  end: number,
  copy: 'copy_in' | 'copy_out' | undefined,
): CommandTag {
  // "SELECT 1" is nine tenths of what a session completes.
  if (buffer[start] === 0x53 && buffer[start + 1] === 0x45 && buffer[start + 2] === 0x4c) return SELECT
  const tag = buffer.toString('latin1', start, buffer[end - 1] === 0 ? end - 1 : end)
  const counted = WRITES.exec(tag)
  if (counted !== null) {
    const rows = Number(counted[2])
    const sent = counted[1] === 'COPY' && copy === 'copy_out'
    const [affectedRows, returnedRows] = sent ? [undefined, rows] : [rows, undefined]
    return { affectedRows, returnedRows, ddl: false, names: undefined }
  }
  return { affectedRows: undefined, returnedRows: undefined, ddl: DDL.test(tag), names: NAMES[tag] }
}
