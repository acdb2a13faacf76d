/** Kubernetes projected service-account tokens. Source: Kubernetes documentation, "Managing Service Accounts". */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

const ROOT = 'kubernetes.io'

export const kubernetes: Preset = {
  name: 'kubernetes',
  sharedIssuer: () => false,
  tenancyClaims: [],
  claims: {
    // system:serviceaccount:<namespace>:<name>; the uid beside it tells a deleted and recreated account apart.
    sub: { class: 'mutable', identifying: true, audit: true },
    jti: { class: 'immutable', audit: true },
    'kubernetes.io.namespace': { path: [ROOT, 'namespace'], class: 'mutable', identifying: true, audit: true },
    'kubernetes.io.serviceaccount.name': { path: [ROOT, 'serviceaccount', 'name'], class: 'mutable', audit: true },
    'kubernetes.io.serviceaccount.uid': {
      path: [ROOT, 'serviceaccount', 'uid'],
      class: 'immutable',
      identifying: true,
      audit: true,
    },
    'kubernetes.io.pod.name': { path: [ROOT, 'pod', 'name'], class: 'claimed', audit: true, glob: true },
    'kubernetes.io.pod.uid': { path: [ROOT, 'pod', 'uid'], class: 'trusted', audit: true },
    'kubernetes.io.node.name': { path: [ROOT, 'node', 'name'], class: 'trusted', audit: true },
    'kubernetes.io.node.uid': { path: [ROOT, 'node', 'uid'], class: 'trusted', audit: true },
  },
  openClaims: false,
  algorithms: ['RS256', 'ES256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: [],
  refused: [],
  mustAgree: [],
  tokenRecipe:
    'a projected volume with serviceAccountToken: { audience: AUD, expirationSeconds: 600, path: token }; read the file again at each connection',
  refetchable: true,
  // The API server's own, which any workload's default token has; and the one that EKS puts into every pod.
  refusedAudiences: [
    /^(https:\/\/)?kubernetes\.default(\.svc(\.cluster\.local)?)?\/?$/,
    /^https:\/\/container\.googleapis\.com\//,
    /^https:\/\/oidc\.eks\./,
    /^(sts\.amazonaws\.com|api)$/,
  ],
  // An API server for which no audience is configured takes its issuer's URL.
  isDefaultAudience: (audience, url) => audience === url,
  job(claims) {
    return known({
      pipelineName: text(claims, 'kubernetes.io.serviceaccount.name'),
      runId: text(claims, 'kubernetes.io.pod.uid'),
      taskName: text(claims, 'kubernetes.io.pod.name'),
      taskRunId: text(claims, 'kubernetes.io.pod.uid'),
    })
  },
  // A token made by `kubectl create token` names no pod and is a job of its own.
  jobKey: (claims) => [text(claims, 'kubernetes.io.namespace'), text(claims, 'kubernetes.io.pod.uid')],
}
