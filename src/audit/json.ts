/** JSON text that is safe to show: whatever a client puts into a name, a claim or SQL stays on its line and in its place. */

/**
 * What JSON.stringify leaves raw and a terminal, a log viewer or a JavaScript parser may act upon: DEL and the C1 controls,
 * zero-width characters, bidirectional controls (they can make `drop` read as something else), and U+2028 and U+2029, which
 * some line readers take for a line's end. JSON.stringify itself escapes the C0 controls and lone surrogates.
 */
const UNSAFE_TEST = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/
const UNSAFE = new RegExp(UNSAFE_TEST.source, 'g')

const escapeUnit = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`

/** Outside of strings JSON text is plain ASCII, so replacing in the finished text touches strings only. */
const escapeUnsafe = (json: string): string => (UNSAFE_TEST.test(json) ? json.replace(UNSAFE, escapeUnit) : json)

/** A JSON string literal with its quotes; JSON.parse gives back exactly `text`, lone surrogates included. */
export const jsonString = (text: string): string => escapeUnsafe(JSON.stringify(text))

const bigAsText = (_key: string, member: unknown): unknown => (typeof member === 'bigint' ? member.toString() : member)

/** Any plain value; `undefined` members are left out, big integers become decimal strings. @throws TypeError for a cycle. */
export function jsonValue(value: unknown): string {
  try {
    return escapeUnsafe(JSON.stringify(value) ?? 'null')
  } catch {
    // A function called for each member is most of what an event costs, and a big integer is rare.
    return escapeUnsafe(JSON.stringify(value, bigAsText) ?? 'null')
  }
}

/** The longest prefix of `text` whose JSON string literal has at most `budget` bytes of UTF-8, as that literal. */
export function jsonStringWithin(text: string, budget: number): { json: string; cut: boolean } {
  let kept = text.length > budget ? text.slice(0, Math.max(0, budget)) : text
  let json = jsonString(kept)
  for (let bytes = Buffer.byteLength(json); bytes > budget && kept !== ''; bytes = Buffer.byteLength(json)) {
    let end = Math.min(kept.length - 1, Math.floor((kept.length * budget) / bytes))
    if (isHighSurrogate(kept.charCodeAt(end - 1))) end--
    kept = kept.slice(0, Math.max(0, end))
    json = jsonString(kept)
  }
  return { json, cut: kept.length < text.length }
}

const isHighSurrogate = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdbff
