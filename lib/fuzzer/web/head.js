// The top line: which target is shown and what else there is, how the server
// and the connection are, and what the browser shows of it outside the page.

import { emit, on, setPaused, state } from "./bus.js";
import { announce, byId, everyFrame, setBadge, setText, setTitle } from "./dom.js";
import { clockTime, count, dateTime, duration, percent } from "./format.js";
import { addKey } from "./keys.js";
import { reportTime, unixNow } from "./report.js";
import { isUnknownTarget } from "./targets.js";
import { wasm } from "./wasm.js";

const THEMES = ["system", "light", "dark"];
const THEME_NAMES = { system: "Auto", light: "Light", dark: "Dark" };
const THEME_TITLES = { system: "follows the system", light: "light", dark: "dark" };
const THEME_KEY = "fuzzserver.theme";
const CONNECTION_TITLES = {
  connecting: "No connection to the server yet",
  connected: "Connected to the server",
  reconnecting: "The connection is lost; the page tries again every few seconds",
};
const REPORT_TITLE = "All is as it was then: this page is a file, and asks no server";
const WANTS_TOKEN = "The server wants its token: open the address that it printed";
const ICON_COLORS = { plain: "#0b72a8", findings: "#c8281f", disconnected: "#8a939b" };

let theme = savedTheme();
let pausedAt = 0;
let wasLost = false;

export function start() {
  applyTheme();
  const render = everyFrame(renderHead);
  for (const event of ["server", "connection", "wasm", "index", "coverage", "target", "source"]) on(event, render);
  on("pause", onPause);
  on("connection", onConnection);
  // What is not in the page itself must change in tabs that nobody sees, too.
  for (const event of ["connection", "coverage", "index", "findings", "server"]) on(event, renderOutside);
  const pause = byId("pause");
  pause.hidden = reportTime !== null;
  pause.addEventListener("click", () => setPaused(!state.paused));
  const button = byId("theme");
  button.hidden = false;
  button.addEventListener("click", nextTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => emit("theme"));
  addKey("t", "Change the theme: system, light, dark", nextTheme);
  setInterval(renderElapsed, 1000);
  renderHead();
}

// ------------------------------------------------------------------- badges

function renderHead() {
  renderConnection();
  const serverState = state.server.state;
  byId("serverState").hidden = serverState === undefined || state.connection !== "connected";
  setBadge(byId("serverState"), String(serverState ?? ""));
  setText(byId("status"), statusLine());
  setTitle(byId("status"), byId("status").textContent);
  renderElapsed();
}

function renderConnection() {
  const dom = byId("connection");
  if (reportTime !== null) {
    setText(dom, `report of ${dateTime(reportTime)}`);
    setTitle(dom, REPORT_TITLE);
    dom.dataset.state = "quiet";
    return;
  }
  setBadge(dom, state.wantsToken ? "token needed" : state.connection);
  setTitle(dom, state.wantsToken ? WANTS_TOKEN : CONNECTION_TITLES[state.connection]);
}

function statusLine() {
  const text = String(state.server.text ?? "").trim();
  if (state.wasmFailure !== null) return "Without main.wasm, coverage is shown plainly.";
  if (!state.hasWasm && reportTime !== null) return "Loading the report…";
  if (!state.hasWasm) return "Loading WebAssembly, which the server may have to compile first…";
  if (state.wantsToken) return `${WANTS_TOKEN}.`;
  if (state.connection === "reconnecting") return "The connection is lost. Trying to reconnect…";
  if (state.connection === "connecting") return "Connecting to the server…";
  if (state.paused) return `Paused at ${clockTime(pausedAt)}; fuzzing goes on.`;
  if (state.sources === "loading") return "Loading sources…";
  if (state.sources instanceof Error) return `The sources could not be loaded: ${state.sources.message}`;
  if (state.server.state === "failed") return "The server reports a failure.";
  if (isUnknownTarget()) return "The server does not know this target.";
  if (!state.hasIndex) return "Waiting for the fuzzer to report its coverage…";
  if (text !== "" && !text.includes("\n")) return text;
  if (!state.hasCoverage) return "Waiting for the first coverage update…";
  return "";
}

function renderElapsed() {
  if (state.paused) return;
  const dom = byId("elapsed");
  const started = state.server.started;
  const seconds = typeof started === "number" ? unixNow() - started :
    state.hasCoverage ? wasm.fuzzedSeconds() : NaN;
  dom.hidden = Number.isNaN(seconds) || state.connection !== "connected";
  if (dom.hidden) return;
  setText(dom, duration(seconds));
  if (typeof started === "number") setTitle(dom, `The server was started at ${clockTime(started)}`);
}

function onConnection() {
  if (state.wantsToken) announce(WANTS_TOKEN);
  else if (state.connection === "reconnecting") announce("The connection to the server is lost");
  else if (wasLost) announce("Connected to the server again");
  wasLost = state.connection === "reconnecting";
}

function onPause(paused) {
  pausedAt = unixNow();
  const dom = byId("pause");
  dom.setAttribute("aria-pressed", paused);
  document.body.classList.toggle("paused", paused);
  renderHead();
}

// -------------------------------------------------------- title and favicon

function renderOutside() {
  const findings = state.server.findings?.length ?? 0;
  const total = state.hasCoverage ? wasm.locationCount() : 0;
  const isLost = state.connection === "reconnecting";
  const parts = ["fuzzserver"];
  if (total > 0) parts.unshift(percent(wasm.coveredCount() >>> 0, total));
  if (findings > 0) parts.unshift(`(${count(findings)})`);
  if (isLost) parts.unshift("disconnected –");
  const title = parts.join(" ");
  if (document.title !== title) document.title = title;
  renderIcon(isLost ? "disconnected" : findings > 0 ? "findings" : "plain");
}

function renderIcon(kind) {
  const dom = byId("favicon");
  if (dom.dataset.kind === kind) return;
  dom.dataset.kind = kind;
  const ring = ICON_COLORS[kind === "disconnected" ? kind : "plain"];
  const shapes = [`<circle cx="8" cy="8" r="6" fill="none" stroke="${ring}" stroke-width="2.5"/>`];
  if (kind !== "disconnected") shapes.push(`<circle cx="8" cy="8" r="2.5" fill="${ring}"/>`);
  if (kind === "findings") shapes.push(`<circle cx="12" cy="12" r="4" fill="${ICON_COLORS.findings}"/>`);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${shapes.join("")}</svg>`;
  dom.href = "data:image/svg+xml," + encodeURIComponent(svg);
}

// -------------------------------------------------------------------- theme

// Browsers may refuse to keep anything.
function savedTheme() {
  try {
    const saved = localStorage.getItem(THEME_KEY);
    return THEMES.includes(saved) ? saved : "system";
  } catch {
    return "system";
  }
}

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem(THEME_KEY, theme);
  } catch {
    // It lasts as long as the page, then.
  }
  applyTheme();
  emit("theme");
  announce(`Theme: ${THEME_TITLES[theme]}`);
}

function applyTheme() {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(byId("theme"), THEME_NAMES[theme]);
  setTitle(byId("theme"), `Theme: ${THEME_TITLES[theme]} (t)`);
}
