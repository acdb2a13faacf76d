/**
 * AWS, `sts:GetWebIdentityToken` (outbound identity federation). Source: AWS IAM documentation, "Getting started with outbound
 * identity federation" and "Understanding token claims". They name the role that a job runs as and nothing of a build.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, MINUTE, text } from './fields.ts'

const STS = 'https://sts.amazonaws.com/'

export const aws: Preset = {
  name: 'aws',
  issuerForm: {
    like: /^https:\/\/[0-9a-f-]{36}\.tokens\.sts\.global\.api\.aws$/,
    shown: 'https://UUID.tokens.sts.global.api.aws, as `aws iam get-outbound-web-identity-federation-info` shows it',
  },
  sharedIssuer: () => false,
  tenancyClaims: [],
  claims: {
    // arn:aws:iam::<account>:role/<name>. A role can be deleted and made again, by those who administer the account.
    sub: { class: 'mutable', identifying: true, audit: true },
    jti: { class: 'immutable', audit: true },
    aws_account: { path: [STS, 'aws_account'], class: 'immutable', audit: true },
    org_id: { path: [STS, 'org_id'], class: 'immutable', audit: true },
    ou_path: { path: [STS, 'ou_path'], class: 'trusted', audit: true },
    principal_id: { path: [STS, 'principal_id'], class: 'mutable', audit: true },
    source_region: { path: [STS, 'source_region'], class: 'claimed', audit: true },
    original_session_exp: { path: [STS, 'original_session_exp'], class: 'trusted', audit: true },
  },
  // Two name spaces that must not be mixed: tags of the role, and tags that whoever asks for the token writes into it.
  openClaims: [
    { prefix: 'principal_tags.', path: [STS, 'principal_tags'], audit: true },
    { prefix: 'request_tags.', path: [STS, 'request_tags'] },
  ],
  algorithms: ['ES384', 'RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: 5 * MINUTE,
  executionMarkers: ['aws_account'],
  refused: [],
  mustAgree: [],
  tokenRecipe:
    'aws sts get-web-identity-token --audience AUD --signing-algorithm ES384 --duration-seconds 300 --query WebIdentityToken --output text',
  refetchable: true,
  refusedAudiences: [/^sts\.amazonaws\.com$/],
  job: (claims) => known({ pipelineName: /^arn:[a-z-]+:iam::\d+:role\/(.+)$/.exec(text(claims, 'sub') ?? '')?.[1] }),
  // Two jobs of one role cannot be told apart: the name of the session is the caller's own choice.
  jobKey: () => [undefined],
}
