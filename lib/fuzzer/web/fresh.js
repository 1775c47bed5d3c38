// Which points are new: those that were covered last, and those of them that were covered
// a moment ago, by the clock of this browser. The marks of the latter glow.

import { on } from "./bus.js";
import { u32s, wasm } from "./wasm.js";

export const FRESH_MS = 10_000;
// After a start of the fuzzer all that it can reach at once is new; nobody looks at each of it.
const MOST = 5000;

// How many of those that were covered last are of interest.
const LATEST = 200;

// When each was covered, by its index; the oldest first.
const times = new Map();

// Registered before those of the modules that ask `freshAge`.
export function startFresh() {
  on("index", () => times.clear());
  on("coverage", () => {
    const now = performance.now();
    forgetOld(now);
    for (const point of u32s(wasm.newlyCovered()).subarray(0, MOST)) times.set(point, now);
  });
}

// Milliseconds since the point was covered, or null if that is longer ago.
export function freshAge(point) {
  const time = times.get(point);
  if (time === undefined) return null;
  const age = performance.now() - time;
  return age < FRESH_MS ? age : null;
}

function forgetOld(now) {
  for (const [point, time] of times) {
    if (now - time < FRESH_MS) return;
    times.delete(point);
  }
}

// The points that were covered last, the newest first.
export function latestPoints() {
  return [...u32s(wasm.newest(LATEST))];
}
