/** "Did you mean": the nearest of some known words. */

/**
 * Optimal string alignment distance (insert, delete, replace, swap of neighbours), or `limit + 1` where it is larger.
 * Work is bounded by `limit`, so that a word of a kilobyte costs no more than a short one.
 */
export function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1
  let beforePrevious: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    let best = i
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + change)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (swapped) cost = Math.min(cost, (beforePrevious[j - 2] ?? 0) + 1)
      current.push(cost)
      if (cost < best) best = cost
    }
    // A swap reaches back two rows and adds one, so two rows over the limit are needed before giving up.
    if (best > limit && Math.min(...previous) >= limit) return limit + 1
    beforePrevious = previous
    previous = current
  }
  return Math.min(previous[b.length] ?? limit + 1, limit + 1)
}

/** The known word that `word` most likely stands for; letter case and `-` against `_` count for nothing. */
export function didYouMean(word: string, known: Iterable<string>): string | undefined {
  const fold = (text: string): string => text.toLowerCase().replaceAll('-', '_')
  const wanted = fold(word.slice(0, 100))
  const limit = Math.min(3, Math.max(1, Math.floor(wanted.length / 3)))
  let best: { candidate: string; distance: number } | undefined
  for (const candidate of known) {
    const distance = editDistance(wanted, fold(candidate), limit)
    if (distance <= limit && (best === undefined || distance < best.distance)) best = { candidate, distance }
  }
  return best?.candidate
}

/** The hint `did you mean "x"?`, or else the list of what is known, if it is short. */
export function suggestion(word: string, known: Iterable<string>, what: string): string | undefined {
  const candidates = [...known]
  const nearest = didYouMean(word, candidates)
  if (nearest !== undefined) return `did you mean "${nearest}"?`
  if (candidates.length === 0 || candidates.length > 24) return undefined
  return `${what}: ${candidates.sort().join(', ')}`
}
