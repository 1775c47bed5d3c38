// Following the fuzzer: the source scrolls to what is newly covered, until the reader
// takes over.

import { on, state } from "./bus.js";
import { announce, byId } from "./dom.js";
import { addKey } from "./keys.js";
import { go, route } from "./route.js";
import { visibleLines } from "./source.js";
import { u32s, wasm } from "./wasm.js";

// Faster than this nobody can read what is shown.
const INTERVAL_MS = 1000;
// So many are looked at; after a start of the fuzzer all that it can reach at once is new.
const MOST = 1000;
// What readers do to the source when they want to see something else.
const TAKING_OVER = ["wheel", "touchmove", "pointerdown", "keydown"];

let button;
let isOn = false;
let waiting = [];
let timer = null;
let lastTime = -Infinity;
// Where we went ourselves last.
let goal = null;

export function startFollow(follow) {
  button = follow;
  button.addEventListener("click", () => set(!isOn));
  addKey("f", "Follow what is newly covered", () => set(!isOn));
  on("coverage", onCoverage);
  on("index", () => waiting = []);
  on("route", () => isOn && route.location !== goal && set(false));
  for (const type of TAKING_OVER) byId("pane").addEventListener(type, onTakingOver, { passive: true });
}

function set(value) {
  if (value === isOn) return;
  isOn = value;
  button.setAttribute("aria-pressed", isOn);
  waiting = [];
  goal = route.location;
  clearTimeout(timer);
  timer = null;
  announce(isOn ? "Following what is newly covered" : "No longer following");
}

function onTakingOver(event) {
  // The key that switches it off should not switch it on again at once; Tab and the like scroll nothing.
  if (event.type === "keydown" && (event.key === "f" || event.key === "Tab" || event.key === "Shift")) return;
  set(false);
}

function onCoverage() {
  if (!isOn || route.view !== "coverage") return;
  const fresh = [...u32s(wasm.newlyCovered()).subarray(0, MOST)];
  if (fresh.length === 0) return;
  waiting = [...fresh, ...waiting].slice(0, MOST);
  timer ??= setTimeout(move, Math.max(0, lastTime + INTERVAL_MS - performance.now()));
}

function move() {
  timer = null;
  lastTime = performance.now();
  const point = nearest();
  waiting = [];
  if (point === undefined || !state.hasIndex) return;
  goal = point;
  go(`#l${point}`, { replace: true });
}

// In the open file the one that is nearest to what can be seen of it, else the first elsewhere.
function nearest() {
  const lines = visibleLines();
  if (lines === null) return waiting.find(hasFile);
  const distance = (point) => {
    const line = (wasm.locationLine(point) >>> 0) - 1;
    return Math.max(lines.first - line, line - lines.last, 0);
  };
  const here = waiting.filter((point) => (wasm.locationFile(point) >>> 0) === lines.file);
  if (here.length === 0) return waiting.find(hasFile);
  return here.reduce((best, point) => distance(point) < distance(best) ? point : best);
}

function hasFile(point) {
  return (wasm.locationFile(point) >>> 0) < wasm.fileCount() >>> 0;
}
