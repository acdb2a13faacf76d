/** Reads ErrorResponse and NoticeResponse of an upstream, which may be hostile or broken. */

/** PostgreSQL knows eighteen kinds of field; more than this is not an ErrorResponse. */
const MAX_FIELDS = 32
/** Bytes kept of one field. The frame is forwarded as it is; this copy is for records and logs. */
const MAX_FIELD_LENGTH = 8 * 1024

/**
 * @param body of the message, without type and length
 * @returns fields by their code (`S`, `V`, `C`, `M`, `D`, `H`, …), the first of each; what cannot be read is left out, so
 *   `C` may be missing. Bytes that are not UTF-8 (an upstream speaks its client_encoding) become U+FFFD.
 */
export function parseErrorFields(body: Buffer): Map<string, string> {
  const fields = new Map<string, string>()
  let offset = 0
  for (let count = 0; count < MAX_FIELDS; count++) {
    const code = body[offset]
    if (code === undefined || code === 0) break
    const nul = body.indexOf(0, offset + 1)
    const end = nul === -1 ? body.length : nul
    const name = String.fromCharCode(code)
    if (!fields.has(name)) {
      fields.set(name, body.toString('utf8', offset + 1, Math.min(end, offset + 1 + MAX_FIELD_LENGTH)))
    }
    offset = end + 1
  }
  return fields
}

/** The SQLSTATE of an ErrorResponse; undefined where there is none or it is not five digits or upper-case letters. */
export function sqlstateOf(fields: ReadonlyMap<string, string>): string | undefined {
  const sqlstate = fields.get('C')
  return sqlstate !== undefined && /^[0-9A-Z]{5}$/.test(sqlstate) ? sqlstate : undefined
}
