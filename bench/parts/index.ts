/** All parts, in the order in which they run. */
import type { Part } from '../part.ts'
import { select } from './select.ts'
import { tpcb } from './tpcb.ts'

export const PARTS: readonly Part[] = [select, tpcb]
