/** Every CI provider that pgusher knows. */
import type { PresetName } from '../../config/schema.ts'
import type { Preset } from '../preset.ts'
import { buildkite } from './buildkite.ts'
import { circleci } from './circleci.ts'
import { generic } from './generic.ts'
import { githubActions } from './github-actions.ts'
import { gitlab } from './gitlab.ts'
import { jenkins } from './jenkins.ts'
import { kubernetes } from './kubernetes.ts'

export const PRESETS: Readonly<Record<PresetName, Preset>> = {
  'github-actions': githubActions,
  gitlab,
  buildkite,
  jenkins,
  circleci,
  kubernetes,
  generic,
}
