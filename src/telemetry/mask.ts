/** Takes secrets out of text that goes to the operational log. The last line of defence: nobody hands secrets to the log. */

const MASK = '[masked]'

/** Each pattern is linear in the text: no nested quantifiers, since part of a logged text is an attacker's. */
const PATTERNS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?/g, MASK],
  // A JWT or JWE, whole or cut: base64url of `{"` and at least one dot. Tokens cut before the first dot are caught as well where they are long.
  [/\beyJ[\w-]{5,}(?:\.[\w-]*)+/g, MASK],
  [/\beyJ[\w-]{40,}/g, MASK],
  [/SCRAM-SHA-256\$[^\s"'<>]*/g, MASK],
  [/\bmd5[0-9a-f]{32}\b/g, MASK],
  // scheme://user:password@host
  [/(\b[a-z][a-z\d+.-]{0,30}:\/\/[^\s:@/?#]{0,255}):[^\s@/]*@/gi, `$1:${MASK}@`],
  [/\b(bearer\s+)[\w.~+/=-]{8,}/gi, `$1${MASK}`],
  // password=…, "client_secret": "…", PASSWORD '…'. The quoted forms first, so that a quoted value with blanks goes as a whole.
  // `id-token: write` is GitHub's permission, of which pgusher's own refusals speak.
  [
    /((?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|id[_-]?token(?!: write["',;\s]))["']?\s{0,8}(?:[=:]\s{0,8}|(?=')))(?:'[^']*(?:''[^']*)*'?|"[^"]*"?|[^\s,;&'"}{)(]+)/gi,
    `$1${MASK}`,
  ],
]

/** The text with everything that looks like a token, key, verifier or password replaced by `[masked]`. */
export function maskSecrets(text: string): string {
  let masked = text
  for (const [pattern, replacement] of PATTERNS) masked = masked.replace(pattern, replacement)
  return masked
}

/** Member names whose values are secrets whatever they look like. */
const SECRET_MEMBER =
  /^(password|passwd|pwd|secret|token|id_?token|access_?token|authorization|private_?key|client_?key|server_?key|stored_?key|verifier|rolpassword)$/i

/** A JSON value with every string masked and the members that hold secrets emptied. */
export function maskValue(value: unknown): unknown {
  if (typeof value === 'string') return maskSecrets(value)
  if (Array.isArray(value)) return value.map(maskValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, SECRET_MEMBER.test(name) ? MASK : maskValue(member)]),
  )
}
