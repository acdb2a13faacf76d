/** All parts, in the order in which they run. */
import type { Part } from '../part.ts'
import { audit } from './audit.ts'
import { bulk } from './bulk.ts'
import { churn } from './churn.ts'
import { ciTrace } from './ci-trace.ts'
import { herd } from './herd.ts'
import { idle } from './idle.ts'
import { mint } from './mint.ts'
import { select } from './select.ts'
import { tpcb } from './tpcb.ts'

export const PARTS: readonly Part[] = [select, tpcb, bulk, churn, ciTrace, audit, mint, herd, idle]
