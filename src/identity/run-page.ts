/** A run's URL in the ways in which people copy it. */

/** Jenkins' ends with a slash, Buildkite's has the job behind `#`, GitHub's behind the run. */
export function runPage(url: string): string {
  const page = url.replace(/[?#].*$/, '').replace(/\/+$/, '')
  return page.replace(/(\/actions\/runs\/\d+(?:\/attempts\/\d+)?)\/job\/\d+$/, '$1')
}

/** GitHub's `…/runs/1/attempts/2` as `…/runs/1`. */
export function withoutAttempt(url: string): string {
  return runPage(url).replace(/\/attempts\/\d+$/, '')
}
