/**
 * Milliseconds after which "at once" and "within a second" are over in a test. On a machine that others use too, the scheduler alone
 * takes some hundred at times; what such a test tells apart, a timeout of 5 s or more and a statement of a minute, comes later.
 */
export const AT_ONCE = 4_000
