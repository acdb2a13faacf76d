/** What the demo writes on the terminal. Colours on a terminal only, or with FORCE_COLOR; never with NO_COLOR. */
import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

export interface Screen {
  /** A colour, where the output takes colours. */
  paint(style: Style, text: string): string
  line(text?: string): void
  /** A part that is up. */
  ready(name: string, text: string): void
  chapter(number: number, title: string): void
  /** Who the job says it is. */
  job(text: string): void
  /** A statement as the job types it, and what came back where that was no error. */
  statement(sql: string, answer?: string): void
  /** An ErrorResponse as psql shows it. */
  error(severity: string, error: { message: string; detail?: string | undefined; hint?: string | undefined }): void
  /** What was seen to be true. */
  seen(text: string): void
}

const WIDTH = 116

export function createScreen(stream: NodeJS.WriteStream): Screen {
  const paint = (style: Style, text: string): string => styleText(style, text, { stream })
  const line = (text = ''): void => void stream.write(`${text}\n`)
  return {
    paint,
    line,
    ready: (name, text) => line(`  ${paint('green', '✓')} ${paint('bold', name.padEnd(12))} ${text}`),
    chapter(number, title) {
      line()
      line(`${paint(['bold', 'cyan'], `${number}  ${title}`)}`)
    },
    job: (text) => line(`   ${paint('dim', text)}`),
    statement(sql, answer) {
      line(`   ${paint('dim', '=>')} ${sql}`)
      if (answer !== undefined) line(`      ${paint('yellow', answer)}`)
    },
    error(severity, { message, detail, hint }) {
      const parts = [
        [severity, message],
        ['DETAIL', detail],
        ['HINT', hint],
      ] as const
      for (const [label, text] of parts) {
        if (text === undefined || text === '') continue
        const [first, ...more] = wrap(text, WIDTH - 12)
        line(`   ${paint(label === severity ? ['bold', 'red'] : 'red', `${label}:`.padEnd(8))} ${first ?? ''}`)
        for (const rest of more) line(`   ${''.padEnd(8)} ${rest}`)
      }
    },
    seen: (text) => line(`   ${paint('green', `✓ ${text}`)}`),
  }
}

/** At spaces; a longer word stays whole, so that it can be copied. */
function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = []
    for (const word of paragraph.split(' ')) {
      const last = lines.at(-1)
      if (last !== undefined && last.length + word.length < width) lines[lines.length - 1] = `${last} ${word}`
      else lines.push(word)
    }
    return lines
  })
}
