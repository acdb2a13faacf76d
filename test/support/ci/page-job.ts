/**
 * The jobs of the recipe pages docs/ci/*.md as their CI reads them: which scripts it starts with which shell, what it gives to them, and
 * what the token says because the definition says it. The shell is the one that the vendor documents; where that is bash or, in an image
 * without it, sh, it is sh, which understands less.
 */
import { parse } from 'yaml'
import type { PresetName } from '../../../src/config/schema.ts'
import type { Block, Claims, Page } from '../ci-pages.ts'

export interface Step {
  /** With the script's file behind it; empty for a file that is executed. */
  shell: readonly string[]
  script: string
  /** Beside the job's variables. */
  env?: Readonly<Record<string, string>>
}

export interface PageJob {
  /** Those that connect. */
  steps: readonly Step[]
  /** The repository's files are there without a command of the job's. */
  checkedOut: boolean
  /** What the definition decides; undefined for a claim that the token is without. */
  claims?: Claims
  /** Of the token that is made at the job's start; undefined where nothing is set. */
  audience?: string | undefined
  /** The variable that the definition gives that token. */
  variable?: string | undefined
  /** Variables that a job has by asking for them only, and this one does not. */
  without?: readonly string[]
}

/** @param block the definition, which a later block of the page may change in its last step */
export function jobOf(page: Page, block: Block): PageJob {
  const [first] = page.job
  if (first === undefined) throw new Error(`${page.name} has no job`)
  const definition = first.language === 'yaml' ? (parse(first.body) as unknown) : first.body
  if (block === first) return READERS[page.name](definition, page)
  if (block.language === 'sh') return inPlaceOfItsScript(READERS[page.name](definition, page), block.body)
  const later = parse(block.body) as unknown
  return READERS[page.name](Array.isArray(later) ? withLastStep(definition, later) : later, page)
}

function inPlaceOfItsScript(job: PageJob, script: string): PageJob {
  return { ...job, steps: job.steps.slice(-1).map((step) => ({ ...step, script })) }
}

/** The definition with `later` for the last of its steps, wherever these stand. */
function withLastStep(definition: unknown, later: unknown[]): unknown {
  if (!isObject(definition)) return definition
  return Object.fromEntries(
    Object.entries(definition).map(([key, value]) => [
      key,
      key === 'steps' && Array.isArray(value) ? [...value.slice(0, -1), ...later] : withLastStep(value, later),
    ]),
  )
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What is at that place, `*` being the only member of an object or list. */
function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((found, key) => {
    if (typeof found !== 'object' || found === null) return undefined
    if (key !== '*') return (found as Record<string, unknown>)[key]
    const members = Object.values(found)
    if (members.length !== 1) throw new Error(`not one but ${members.length} members at ${path}`)
    return members[0] as unknown
  }, value)
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])
const lines = (value: unknown): string => list(value).join('\n')
const string = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)

/** Of steps in a list those that have this key. */
const withKey = (steps: unknown, key: string): Record<string, unknown>[] =>
  list(steps).filter((step): step is Record<string, unknown> => isObject(step) && key in step)

function actions(definition: unknown, shell: readonly string[], asked: boolean): PageJob {
  const steps = at(definition, 'jobs.*.steps')
  return {
    steps: withKey(steps, 'run').map(({ run }) => ({ shell, script: String(run) })),
    checkedOut: withKey(steps, 'uses').some(({ uses }) => String(uses).startsWith('actions/checkout@')),
    without: asked ? [] : ['ACTIONS_ID_TOKEN_REQUEST_URL', 'ACTIONS_ID_TOKEN_REQUEST_TOKEN'],
  }
}

/** What the page's text names by this expression. */
function inText({ name, text }: Page, expression: RegExp): string[] {
  const found = expression.exec(text)
  if (found === null) throw new Error(`${name} says nothing like ${expression}`)
  return found.slice(1)
}

/** A block of shell that is the whole step. */
const shellBlock =
  (shell: readonly string[]) =>
  (body: unknown): PageJob => ({ steps: [{ shell, script: String(body) }], checkedOut: true })

const SH = ['sh', '-e']

/** As `buildkite-agent pipeline upload` does with the variables of the agent that uploads, which has none of the job's. */
const uploaded = (text: string): string =>
  text.replace(/\$\$|\\\$|\$\{\w+[^}]*\}|\$\w+/g, (found) => (found === '$$' || found === '\\$' ? '$' : ''))

const READERS: Readonly<Record<PresetName, (definition: unknown, page: Page) => PageJob>> = {
  'github-actions': (definition) => ({
    ...actions(definition, ['bash', '-e'], at(definition, 'jobs.*.permissions.id-token') === 'write'),
    claims: { environment: at(definition, 'jobs.*.environment') },
  }),
  forgejo: (definition) => actions(definition, SH, at(definition, 'enable-openid-connect') === true),
  gitlab: (definition) => ({
    steps: [{ shell: SH, script: lines(at(definition, '*.script')) }],
    checkedOut: true,
    claims: { environment: at(definition, '*.environment') },
    variable: Object.keys(at(definition, '*.id_tokens') ?? {})[0],
    audience: string(at(definition, '*.id_tokens.*.aud')),
    without: ['PGUSHER_ID_TOKEN'],
  }),
  buildkite: (definition) => ({
    steps: list(at(definition, 'steps')).map((step) => ({
      shell: ['bash', '-e'],
      script: uploaded(String(at(step, 'command'))),
    })),
    checkedOut: true,
  }),
  jenkins: (definition, page) => {
    const [id, audience] = inText(page, /with id `(\w+)` and audience `(\S+)`/)
    const bound = /withCredentials\(\[string\(credentialsId: '(\w+)', variable: '(\w+)'\)\]\)/.exec(String(definition))
    const scripts = [...String(definition).matchAll(/sh '''([\s\S]*?)'''/g)]
    return {
      // Jenkins' own `sh` step: each command is printed before it runs.
      steps: scripts.map(([, script = '']) => ({ shell: ['sh', '-xe'], script })),
      checkedOut: true,
      ...(bound?.[1] === id ? { variable: bound?.[2], audience } : {}),
      without: ['PG_ID_TOKEN'],
    }
  },
  circleci: (definition, page) => {
    const steps = at(definition, 'jobs.*.steps')
    const context = at(definition, 'workflows.*.jobs.*.*.context')
    const contexts = 'oidc.circleci.com/context-ids'
    return {
      steps: withKey(steps, 'run').map(({ run }) => ({ shell: ['bash', '-eo', 'pipefail'], script: String(run) })),
      checkedOut: list(steps).includes('checkout'),
      claims: { [contexts]: context === undefined ? [] : page.claims[contexts] },
    }
  },
  bitbucket: (definition, page) => {
    const step = at(definition, 'pipelines.branches.*.*.step')
    const environment = 'deploymentEnvironmentUuid'
    const oidc = at(step, 'oidc')
    return {
      steps: [{ shell: SH, script: lines(at(step, 'script')) }],
      checkedOut: true,
      claims: { [environment]: at(step, 'deployment') === undefined ? undefined : page.claims[environment] },
      audience: string(at(oidc, 'audiences.*')),
      without: oidc === undefined ? ['BITBUCKET_STEP_OIDC_TOKEN'] : [],
    }
  },
  'azure-devops': (definition) => ({
    steps: withKey(at(definition, 'steps'), 'bash').map(({ bash, env }) => ({
      shell: ['bash', '--noprofile', '--norc'],
      script: String(bash),
      ...(isObject(env) ? { env: env as Record<string, string> } : {}),
    })),
    checkedOut: true,
    without: ['SYSTEM_ACCESSTOKEN'],
  }),
  google: (definition) => ({
    steps: withKey(at(definition, 'steps'), 'script').map(({ script }) => ({ shell: ['sh'], script: String(script) })),
    checkedOut: true,
  }),
  codefresh: (definition) => {
    const steps = at(definition, 'steps')
    const types = Object.entries(isObject(steps) ? steps : {}).map(([name, step]) => `${name}: ${at(step, 'type')}`)
    return {
      steps: withKey(Object.values(steps ?? {}), 'commands').map(({ commands }) => ({
        shell: SH,
        script: lines(commands),
      })),
      // By this name only its directory is where the other steps begin.
      checkedOut: types.includes('main_clone: git-clone'),
      variable: types.some((type) => type.endsWith(': obtain-oidc-id-token')) ? 'ID_TOKEN' : undefined,
    }
  },
  semaphore: (definition) => ({
    steps: [{ shell: ['bash', '-e'], script: lines(at(definition, 'blocks.*.task.jobs.*.commands')) }],
    checkedOut: false,
  }),
  aws: (definition) => ({
    steps: [
      {
        shell: [string(at(definition, 'env.shell')) ?? 'sh'],
        script: lines(at(definition, 'phases.build.commands')),
      },
    ],
    checkedOut: true,
  }),
  kubernetes: (definition, page) => {
    const pod = at(definition, 'spec.template.spec')
    const container = at(pod, 'containers.*')
    const token = at(pod, 'volumes.*.projected.sources.*.serviceAccountToken')
    const command = list(at(container, 'command'))
    if (command.join(' ') !== 'sh -c') throw new Error(`the pod of ${page.name} runs ${command.join(' ')}`)
    const account = `${at(definition, 'metadata.namespace')}:${at(pod, 'serviceAccountName')}`
    return {
      // $$ and $(NAME) are Kubernetes' own, for variables of the container, of which there are none.
      steps: [{ shell: ['sh'], script: lines(at(container, 'args')).replaceAll('$$', '$') }],
      checkedOut: true,
      claims: { sub: `system:serviceaccount:${account}` },
      audience: string(at(token, 'audience')),
    }
  },
  'hcp-terraform': (definition, page) => ({
    ...shellBlock([])(definition),
    audience: inText(page, /`TFC_WORKLOAD_IDENTITY_AUDIENCE` to `(\S+)`/)[0],
  }),
  spacelift: shellBlock(SH),
  harness: shellBlock(SH),
  okta: shellBlock(SH),
  entra: shellBlock(SH),
  spiffe: shellBlock(SH),
  generic: shellBlock(SH),
}
