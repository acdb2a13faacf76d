/** Loaded before a program whose clock is to be off: Date is ahead by SHIFT_SECONDS, in every thread. */
const RealDate = Date
const offset = Number(process.env['SHIFT_SECONDS'] ?? 0) * 1000

class ShiftedDate extends RealDate {
  constructor(...parts: unknown[]) {
    if (parts.length === 0) super(RealDate.now() + offset)
    else super(...(parts as [number]))
  }

  static override now(): number {
    return RealDate.now() + offset
  }
}

globalThis.Date = ShiftedDate as DateConstructor
