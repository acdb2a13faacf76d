/**
 * CI systems that put one token into a variable or a file when the job starts, as data. There is no other for this job, so
 * what lives longer than the token needs a window or a ticket. Sources: each vendor's documentation of its OIDC tokens.
 */
import { printable } from '../../config/quote.ts'
import type { Environment, TokenSource } from '../token-source.ts'
import { noToken } from '../token-text.ts'
import { type CiSystem, isTrue, setting, tokenSource } from './ci-system.ts'
import { readTokenFile } from './read-token.ts'

interface VariableSystem {
  name: string
  preset: CiSystem['preset']
  marks: string
  isHere(env: Environment): boolean
  /** Where the token is; the first that is set is taken. */
  variables: readonly string[]
  /** Variables that hold the path of a file with it. */
  fileVariables?: readonly string[]
  /** Where the file always is. */
  file?: string
  /** What is wrong where there is none, and what to add to the job. */
  missing: string
  hint?: string
}

/** What the job's author writes into `id_tokens:` or `withCredentials`; the second is the name in our pages and hints. */
export const OWN_VARIABLES = ['PGUSHER_ID_TOKEN', 'PG_ID_TOKEN'] as const
export const OWN_FILE_VARIABLES = ['PGUSHER_ID_TOKEN_FILE', 'PG_ID_TOKEN_FILE'] as const

const anyOf =
  (...names: string[]) =>
  (env: Environment): boolean =>
    names.some((name) => setting(env, name) !== undefined)

const GITLAB: VariableSystem = {
  name: 'GitLab CI/CD',
  preset: 'gitlab',
  marks: 'GITLAB_CI',
  isHere: (env) => isTrue(env, 'GITLAB_CI'),
  variables: OWN_VARIABLES,
  missing:
    'GitLab gives this job no token: add "id_tokens: { PG_ID_TOKEN: { aud: AUDIENCE } }" to the job, with the audience that pgusher expects, which GET /v1/audience at its address tells',
  hint: "A token in another variable is named by --token-env. CI_JOB_TOKEN is for GitLab's API and not such a token.",
}

const JENKINS: VariableSystem = {
  name: 'Jenkins',
  preset: 'jenkins',
  marks: 'JENKINS_URL with BUILD_NUMBER',
  isHere: (env) => anyOf('JENKINS_URL', 'JENKINS_HOME')(env) && anyOf('BUILD_NUMBER')(env),
  variables: OWN_VARIABLES,
  fileVariables: OWN_FILE_VARIABLES,
  missing:
    "Jenkins gives this step no token: put it into withCredentials([string(credentialsId: 'ID', variable: 'PG_ID_TOKEN')]) { … }, with an \"OpenID Connect id token\" credential",
  hint: 'An administrator makes that credential (plugin "OpenID Connect Provider") with the audience that pgusher expects. A file credential goes into PG_ID_TOKEN_FILE.',
}

const BITBUCKET: VariableSystem = {
  name: 'Bitbucket Pipelines',
  preset: 'bitbucket',
  marks: 'BITBUCKET_BUILD_NUMBER',
  isHere: anyOf('BITBUCKET_BUILD_NUMBER'),
  variables: ['BITBUCKET_STEP_OIDC_TOKEN'],
  missing:
    'Bitbucket Pipelines gives this step no token: add "oidc: { audiences: [AUDIENCE] }" to the step, with the audience that pgusher expects, which GET /v1/audience at its address tells',
}

const SEMAPHORE: VariableSystem = {
  name: 'Semaphore',
  preset: 'semaphore',
  marks: 'SEMAPHORE',
  isHere: (env) => isTrue(env, 'SEMAPHORE'),
  variables: ['SEMAPHORE_OIDC_TOKEN'],
  missing: 'Semaphore has not set SEMAPHORE_OIDC_TOKEN: OIDC is a feature of its Scaleup plan',
}

const SPACELIFT: VariableSystem = {
  name: 'Spacelift',
  preset: 'spacelift',
  marks: 'SPACELIFT_OIDC_TOKEN or TF_VAR_spacelift_run_id',
  isHere: anyOf('SPACELIFT_OIDC_TOKEN', 'TF_VAR_spacelift_run_id'),
  variables: ['SPACELIFT_OIDC_TOKEN'],
  file: '/mnt/workspace/spacelift.oidc',
  missing: 'Spacelift has not set SPACELIFT_OIDC_TOKEN: tokens are there in the runs of paid accounts only',
}

const HCP_TERRAFORM: VariableSystem = {
  name: 'HCP Terraform',
  preset: 'hcp-terraform',
  marks: 'TFC_RUN_ID',
  isHere: anyOf('TFC_RUN_ID', 'TFC_WORKLOAD_IDENTITY_TOKEN'),
  // A workspace can have several, with a tag of its own for each audience.
  variables: ['TFC_WORKLOAD_IDENTITY_TOKEN_PGUSHER', 'TFC_WORKLOAD_IDENTITY_TOKEN'],
  missing:
    'HCP Terraform gives this run no token: set the workspace variable TFC_WORKLOAD_IDENTITY_AUDIENCE to the audience that pgusher expects, which GET /v1/audience at its address tells',
}

const HARNESS: VariableSystem = {
  name: 'Harness CI',
  preset: 'harness',
  marks: 'HARNESS_BUILD_ID or HARNESS_PIPELINE_ID',
  isHere: anyOf('HARNESS_BUILD_ID', 'HARNESS_PIPELINE_ID'),
  variables: [...OWN_VARIABLES, 'PLUGIN_OIDC_TOKEN_ID'],
  missing:
    'Harness gives this step no token: run it with an OIDC connector, which sets PLUGIN_OIDC_TOKEN_ID, or declare a pipeline identity in the variable PG_ID_TOKEN',
}

function variableSystem(system: VariableSystem): CiSystem {
  const { name, preset, marks, isHere, missing, hint } = system
  return {
    name,
    preset,
    marks,
    isHere,
    async open(env) {
      const found = await find(system, env)
      if (found !== undefined) return { ...found, name, preset }
      throw noToken(missing, [...otherTokens(env), ...(hint === undefined ? [] : [hint])].join(' ') || undefined)
    },
  }
}

/** Never taken by themselves: a token that is for somebody else would be shown to pgusher. */
function otherTokens(env: Environment): string[] {
  const names = Object.keys(env).filter((name) => /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/.test(setting(env, name) ?? ''))
  if (names.length === 0) return []
  const some = names.toSorted().slice(0, 5).map(printable).join(', ')
  return [`There is a token in ${some}: if it is for pgusher, name the variable by --token-env.`]
}

async function find(system: VariableSystem, env: Environment): Promise<TokenSource | undefined> {
  const { preset, variables, fileVariables = [], file } = system
  const variable = variables.find((name) => setting(env, name) !== undefined)
  if (variable !== undefined) return fromVariable(env, variable, preset)
  const fileVariable = fileVariables.find((name) => setting(env, name) !== undefined)
  const path = fileVariable === undefined ? file : setting(env, fileVariable)
  if (path === undefined) return undefined
  const there = fileVariable !== undefined || (await readTokenFile(path).catch(() => '')) !== ''
  return there ? fromFile(path, preset) : undefined
}

export function fromVariable(env: Environment, variable: string, preset: CiSystem['preset']): TokenSource {
  const from = `the variable ${variable}`
  const token = setting(env, variable)
  if (token === undefined) throw noToken(`${from} is not set, where a token is wanted`)
  return tokenSource({ name: from, preset, refetchable: false, fixedAudience: true, from, read: async () => token })
}

export function fromFile(path: string, preset: CiSystem['preset']): TokenSource {
  const from = `the file ${path}`
  return tokenSource({
    name: from,
    preset,
    refetchable: false,
    fixedAudience: true,
    from,
    read: () => readTokenFile(path),
  })
}

export const variableSystems: readonly CiSystem[] = [
  GITLAB,
  JENKINS,
  BITBUCKET,
  SEMAPHORE,
  SPACELIFT,
  HCP_TERRAFORM,
  HARNESS,
].map(variableSystem)
