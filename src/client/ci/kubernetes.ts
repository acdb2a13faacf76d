/**
 * A pod's projected service-account token. No variable says where it is mounted, so the job's author says so, or mounts it
 * where pgusher looks. The kubelet replaces it before it ends. Source: Kubernetes documentation, "Projected volumes".
 */
import { lstat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { PresetName } from '../../config/schema.ts'
import type { Environment, TokenSource } from '../token-source.ts'
import { noToken } from '../token-text.ts'
import { setting } from './ci-system.ts'
import { readTokenFile } from './read-token.ts'
import { fromFile, OWN_FILE_VARIABLES } from './variables.ts'

/** In each container of a pod. */
export const POD_MARK = 'KUBERNETES_SERVICE_HOST'

/** Not the pod's default token at /var/run/secrets/kubernetes.io/serviceaccount: that one is for the API server. */
export const MOUNTED_TOKEN = '/var/run/pgusher/token'

/**
 * The token that was mounted for pgusher; undefined where none was.
 * @param preset of a file that is named and is no pod's
 */
export async function mountedToken(
  env: Environment,
  preset: PresetName,
  mounted = MOUNTED_TOKEN,
): Promise<TokenSource | undefined> {
  const named = OWN_FILE_VARIABLES.map((name) => setting(env, name)).find((path) => path !== undefined)
  const file = named ?? mounted
  if (named === undefined && (await readTokenFile(file).catch(() => '')) === '') return undefined
  const pod = named === undefined || setting(env, POD_MARK) !== undefined || (await isProjected(file))
  const source = { ...fromFile(file, preset), refetchable: true }
  return pod ? { ...source, name: 'Kubernetes', preset: 'kubernetes' } : source
}

/** Whether a kubelet keeps this file fresh: it puts a link beside it, by which it replaces all files of a volume at once. */
export async function isProjected(file: string): Promise<boolean> {
  return lstat(join(dirname(file), '..data')).then(
    (found) => found.isSymbolicLink(),
    () => false,
  )
}

export function noMountedToken(): Error {
  return noToken(
    `this pod has no token for pgusher: mount a projected volume at ${MOUNTED_TOKEN.replace(/\/token$/, '')} with "serviceAccountToken: { path: token, audience: AUDIENCE, expirationSeconds: 600 }", with the audience that pgusher expects, which GET /v1/audience at its address tells`,
    `Another path is named by ${OWN_FILE_VARIABLES[0]} or --token-file. The pod's default token is for the API server and is not taken.`,
  )
}
