/** What is installed, and how it is meant to run: exact versions, no surprises in the production tree, a unit and an image without privileges. */
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

interface Locked {
  version: string
  /** An address, which the lock file is kept without: it would bind who installs to one registry. */
  resolved?: string
  integrity?: string
  dev?: boolean
  hasInstallScript?: boolean
}

const manifest = JSON.parse(read('package.json')) as {
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  allowScripts: Record<string, boolean>
}
const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }
const installed = Object.entries(lock.packages).filter(([path]) => path !== '')
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

describe('what is installed', () => {
  test('every version is exact', () => {
    const versions = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([])
  })

  test('every package comes from whichever registry npm is set to, by its SHA-512', () => {
    const other = installed.filter(
      ([, { resolved, integrity }]) => resolved !== undefined || integrity?.startsWith('sha512-') !== true,
    )
    expect(other.map(([path]) => path)).toEqual([])
  })

  test('whose scripts may run is there for development only', () => {
    const scripted = installed.filter(([, one]) => one.hasInstallScript === true)
    expect(scripted.filter(([, { dev }]) => dev !== true)).toEqual([])
    const names = new Set(scripted.map(([path]) => nameOf(path)))
    expect(Object.keys(manifest.allowScripts).filter((name) => !names.has(name))).toEqual([])
  })

  test('npm run sbom lists the production tree, each with version and hash', async () => {
    const { stdout } = await promisify(execFile)('npm', ['run', '--silent', 'sbom'], { cwd: ROOT, maxBuffer: 2 ** 24 })
    const { bomFormat, components } = JSON.parse(stdout) as {
      bomFormat: string
      components: { name: string; version: string; hashes?: unknown[] }[]
    }
    expect(bomFormat).toBe('CycloneDX')
    const production = installed.filter(([, { dev }]) => dev !== true)
    const wanted = new Set(production.map(([path, { version }]) => `${nameOf(path)}@${version}`))
    expect(new Set(components.map(({ name, version }) => `${name}@${version}`))).toEqual(wanted)
    expect(components.filter(({ hashes }) => (hashes ?? []).length === 0)).toEqual([])
    for (const name of Object.keys(manifest.dependencies)) expect(stdout).toContain(`"${name}"`)
  })
})

/** Settings of a unit's section, in order; a comment line is none. */
function settingsOf(unit: string, section: string): Map<string, string[]> {
  const settings = new Map<string, string[]>()
  const body = unit.split(/^\[(\w+)\]$/m)
  for (const line of (body[body.indexOf(section) + 1] ?? '').split('\n')) {
    const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? []
    if (name !== undefined) settings.set(name, [...(settings.get(name) ?? []), value ?? ''])
    else expect(line).toMatch(/^(#.*)?$/)
  }
  return settings
}

describe('config/pgusher.service', () => {
  const unit = read('config/pgusher.service')
  const service = settingsOf(unit, 'Service')

  test('has a user of its own, no capabilities, a read-only file system, and no core', () => {
    const wanted = {
      ...{ User: 'pgusher', CapabilityBoundingSet: '', AmbientCapabilities: '', NoNewPrivileges: 'yes' },
      ...{ ProtectSystem: 'strict', ProtectHome: 'yes', PrivateTmp: 'yes', PrivateDevices: 'yes', LimitCORE: '0' },
      ...{ RestrictNamespaces: 'yes', SystemCallArchitectures: 'native', LogsDirectory: 'pgusher' },
    }
    expect(Object.fromEntries(Object.keys(wanted).map((name) => [name, service.get(name)?.join()]))).toEqual(wanted)
    expect(service.get('SystemCallFilter')).toEqual(['@system-service', '~@privileged @resources'])
    // V8 needs memory that it may write and then execute.
    expect(service.has('MemoryDenyWriteExecute')).toBe(false)
  })

  test('gives it longer to stop than drain_timeout, and reloads by SIGHUP', () => {
    expect(Number.parseInt(service.get('TimeoutStopSec')?.[0] ?? '', 10)).toBeGreaterThan(30)
    expect(service.get('ExecReload')?.[0]).toContain('-HUP')
  })

  test('is a unit that systemd takes', async () => {
    if (!existsSync('/usr/bin/systemd-analyze')) return
    const directory = mkdtempSync(join(tmpdir(), 'pgusher-unit-'))
    try {
      // Whether the program is installed here is not the question.
      const file = join(directory, 'pgusher.service')
      writeFileSync(file, unit.replace('ExecStart=/usr/local/bin/pgusher', 'ExecStart=/bin/true'))
      const { stdout, stderr } = await promisify(execFile)('systemd-analyze', ['verify', file])
      expect(stdout + stderr).not.toContain('pgusher.service')
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe('Dockerfile', () => {
  const stages = read('Dockerfile')
    .split(/^FROM /m)
    .slice(1)
  const last = (stages.at(-1) ?? '').split('\n')

  test('the image runs as a user without privileges, and writes to a volume only', () => {
    expect(last.filter((line) => line.startsWith('USER '))).toEqual(['USER node'])
    expect(last.filter((line) => line.startsWith('VOLUME '))).toEqual(['VOLUME /var/log/pgusher'])
    const behind = last.slice(last.indexOf('USER node') + 1)
    expect(behind.filter((line) => /^(?:RUN|COPY|ADD|USER) /.test(line))).toEqual([])
  })

  test('nothing of it was installed by scripts, and no tool of the build is in it', () => {
    for (const install of read('Dockerfile').match(/npm (?:ci|install).*/g) ?? []) {
      expect(install).toContain('--ignore-scripts')
    }
    expect(last.join('\n')).toContain('COPY --from=dependencies /build/node_modules node_modules')
    expect(stages.find((stage) => stage.includes(' AS dependencies'))).toContain('npm ci --omit=dev')
  })
})
