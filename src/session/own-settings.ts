/**
 * Whether a statement may make a setting of the job's own, such as `SET my.tenant = '7'`. PostgreSQL forgets its value at RESET ALL and
 * never its name: it reads as empty from then on and not as missing, no view shows it, and nothing but a new connection undoes it.
 */

/** Characters behind SET in which its name ends. */
const REACH = 200
/** Most texts have neither. `matchAll` makes a regular expression of its own each time, which is felt where each text is a new one. */
const MAY = /set_config|\bset\b/i

/** True for more than is meant; false for what is hidden in a function that was there before. Linear in the text's length. */
export function mayMakeSetting(text: string): boolean {
  if (!MAY.test(text)) return false
  if (/set_config/i.test(text)) return true
  for (const { index } of text.matchAll(/\bset\b/gi)) {
    const [name] = /^[^=;]*/.exec(text.slice(index + 3, index + 3 + REACH)) ?? ['']
    if (name.includes('.')) return true
  }
  return false
}
