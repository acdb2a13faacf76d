import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Each file that needs PostgreSQL or an issuer starts its own or shares the one of the global setup: two cores are enough for two files at a time.
    maxWorkers: 2,
  },
})
