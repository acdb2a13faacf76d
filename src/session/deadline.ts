/** Waiting for something that cannot be aborted, no longer than a signal allows. */

/**
 * Rejects with the signal's reason when it fires first; what `work` brings after that goes to `late`, so that nothing acquired is
 * lost. A rejection of `work` after that is dropped: whoever waited has been told already.
 */
export function beforeDeadline<T>(work: Promise<T>, signal: AbortSignal, late: (value: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      work.then(late, () => {})
      reject(signal.reason)
    }
    if (signal.aborted) {
      onAbort()
      return
    }
    signal.addEventListener('abort', onAbort, { once: true })
    work.then(
      (value) => {
        signal.removeEventListener('abort', onAbort)
        resolve(value)
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort)
        reject(error)
      },
    )
  })
}
