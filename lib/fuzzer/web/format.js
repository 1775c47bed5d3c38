// Numbers, times and sizes as text. Formatters are made once: one costs more
// than a thousand numbers.

import { unixNow } from "./report.js";

const NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SMALL_NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const SHORT_NUMBERS = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
const CLOCK_TIMES = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });
const DATE_TIMES = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const RELATIVE_TIMES = new Intl.RelativeTimeFormat("en-US", { numeric: "auto" });
const TIME_UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const LARGE_UNITS = ["k", "M", "G", "T"];
const BYTE_UNITS = ["KiB", "MiB", "GiB", "TiB"];

// "1,234,567"; below ten with one digit more, for slow speeds.
export function count(value) {
  return (value < 10 ? SMALL_NUMBERS : NUMBERS).format(value);
}

// "1.84 M"; exact below 10,000.
export function readable(value) {
  return value < 10_000 ? count(value) : scaled(value, 1000, LARGE_UNITS);
}

// "1.21 KiB"; exact below 1024.
export function bytes(size) {
  return size < 1024 ? `${count(size)} B` : scaled(size, 1024, BYTE_UNITS);
}

function scaled(value, base, units) {
  let rest = value / base;
  let unit = 0;
  // What rounds up to the base has reached the next unit.
  while (rest >= base - 0.5 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  return `${SHORT_NUMBERS.format(rest)} ${units[unit]}`;
}

// Neither says nothing where there is a little, nor all where something misses.
export function percent(part, whole) {
  if (whole === 0) return "–";
  const value = part / whole * 100;
  if (value > 0 && value < 0.1) return value.toPrecision(1) + " %";
  return (part < whole ? Math.min(value, 99.9) : value).toFixed(1) + " %";
}

// "1 finding", "2 findings".
export function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

// "2 d 03 h", "1 h 02 min", "3 min 20 s", "12 s".
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value) => String(value).padStart(2, "0");
  if (whole >= 86400) return `${Math.floor(whole / 86400)} d ${two(Math.floor(whole / 3600) % 24)} h`;
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${whole} s`;
}

export function timeAgo(unixSeconds) {
  const age = Math.max(0, unixNow() - unixSeconds);
  const [unit, size] = TIME_UNITS.find(([, size]) => age >= size) ?? TIME_UNITS.at(-1);
  return RELATIVE_TIMES.format(-Math.floor(age / size), unit);
}

// Today needs no date.
export function clockTime(unixSeconds) {
  const time = new Date(unixSeconds * 1000);
  return time.toDateString() === new Date().toDateString() ? CLOCK_TIMES.format(time) : dateTime(unixSeconds);
}

export function dateTime(unixSeconds) {
  return DATE_TIMES.format(new Date(unixSeconds * 1000));
}
