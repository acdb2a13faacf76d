/** Node's diagnostic reports, which an operator may switch on (`--report-on-fatalerror`). */

/**
 * Without the environment, which may hold the admin's password, and without the network: a report looks the name of each peer up, one
 * after another, and holds up the process meanwhile. To be called in each thread, since each has a report of its own in the process's.
 */
export function plainReports(): void {
  // @types/node 24.19 does not know the second one yet.
  Object.assign(process.report, { excludeEnv: true, excludeNetwork: true })
}
