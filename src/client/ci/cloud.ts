/**
 * Platforms that say which account a machine runs as, and nothing of a build: Google's metadata server, and AWS by its
 * command line. Asked only where no CI system is recognised, since a runner of another CI may well stand on such a machine.
 * Sources: Google Cloud documentation, "Get an ID token from the metadata server"; AWS CLI, `sts get-web-identity-token`.
 */
import type { Environment, TokenSource } from '../token-source.ts'
import { noToken } from '../token-text.ts'
import { setting, tokenSource } from './ci-system.ts'
import { ask } from './request.ts'
import { isOnPath, runCommand } from './run-command.ts'

const METADATA_HOST = 'metadata.google.internal'
const IDENTITY = '/computeMetadata/v1/instance/service-accounts/default/identity'
/** The name resolves inside Google only; elsewhere a resolver may take its time to say so. */
const PROBE_MS = 1_000
const FLAVOR = { 'metadata-flavor': 'Google' }

/** Undefined where no metadata server answers. */
export async function googleMetadata(env: Environment): Promise<TokenSource | undefined> {
  const base = `http://${setting(env, 'GCE_METADATA_HOST') ?? METADATA_HOST}`
  const name = 'Google Cloud'
  const probe = { name, url: `${base}/`, headers: FLAVOR, once: true, signal: AbortSignal.timeout(PROBE_MS) }
  const found = await ask(probe).then(
    // Every answer of the real one has it; a captive portal's has not.
    ({ headers }) => headers['metadata-flavor'] === 'Google',
    () => false,
  )
  if (!found) return undefined
  return tokenSource({
    name,
    preset: 'google',
    refetchable: true,
    fixedAudience: false,
    from: "the answer of Google's metadata server",
    read: async (audience, signal) => {
      const url = `${base}${IDENTITY}?audience=${encodeURIComponent(audience)}&format=full`
      const { body } = await ask({
        name: "Google's metadata server",
        url,
        headers: FLAVOR,
        signal,
        advice: (status) =>
          status === 404
            ? 'The machine has no service account, or in Cloud Build the build has none of its own: name one in serviceAccount.'
            : undefined,
      })
      return body
    },
  })
}

const AWS_MARKS = [
  'CODEBUILD_BUILD_ARN',
  'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_SESSION_TOKEN',
]

/** Undefined where nothing speaks for AWS. @throws AccessError `token_missing` where it does and its command line is not installed */
export async function awsRole(env: Environment): Promise<TokenSource | undefined> {
  if (!AWS_MARKS.some((name) => setting(env, name) !== undefined)) return undefined
  if (!(await isOnPath('aws', env))) {
    throw noToken(
      'this job has an AWS role and no way to a token for it: the command aws (of November 2025 or later) is not on the PATH',
    )
  }
  return tokenSource({
    name: 'AWS',
    preset: 'aws',
    refetchable: true,
    fixedAudience: false,
    from: 'the output of aws',
    read: (audience, signal) =>
      runCommand({
        name: 'aws sts get-web-identity-token',
        file: 'aws',
        args: [
          ...['sts', 'get-web-identity-token', '--query', 'WebIdentityToken', '--output', 'text'],
          // Not by --audience: the aws command takes a value file://PATH (in version 1 also https://) for what is found there,
          // and a server could so be shown a file of the job.
          ...[
            '--cli-input-json',
            JSON.stringify({ Audience: [audience], SigningAlgorithm: 'ES384', DurationSeconds: 300 }),
          ],
        ],
        env,
        signal,
        hint: 'The account needs outbound web identity federation switched on, the role the permission sts:GetWebIdentityToken, and the call a region (AWS_REGION).',
      }),
  })
}
