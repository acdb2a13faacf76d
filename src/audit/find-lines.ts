/** Finds the lines of a log that hold a text, without parsing the others: a day's log has gigabytes. */

const NEWLINE = 0x0a
/** A longer line is no event; only its end is looked at, so that a file without line ends does not fill the memory. */
const MAX_LINE_BYTES = 16 * 1024 * 1024

/**
 * @param chunks of a file, in order
 * @param text of ASCII
 * @returns the lines without their ends, in order. The last one may lack its end, as a log does that is being written.
 */
export async function* findLines(chunks: AsyncIterable<Buffer>, text: string): AsyncGenerator<string> {
  const needle = Buffer.from(text)
  /** What follows the last line's end so far. */
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      yield* linesWith(
        needle,
        restBytes === 0 ? chunk.subarray(0, end) : Buffer.concat([...rest, chunk.subarray(0, end)]),
      )
      rest = []
      restBytes = 0
    }
    if (end < chunk.length) {
      // The stream may use the chunk's memory again.
      rest.push(Buffer.from(chunk.subarray(end)))
      restBytes += chunk.length - end
    }
    if (restBytes > MAX_LINE_BYTES) {
      rest = []
      restBytes = 0
    }
  }
  if (restBytes > 0) yield* linesWith(needle, Buffer.concat(rest))
}

function* linesWith(needle: Buffer, data: Buffer): Generator<string> {
  for (let at = data.indexOf(needle); at !== -1; ) {
    const start = data.lastIndexOf(NEWLINE, at) + 1
    const newline = data.indexOf(NEWLINE, at)
    const end = newline === -1 ? data.length : newline
    yield data.toString('utf8', start, end)
    at = data.indexOf(needle, end)
  }
}
