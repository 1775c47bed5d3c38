// The connection to the server: opening it again and again, carrying its bytes
// into main.wasm, and telling the others what they have changed.

import { emit, on, state } from "./bus.js";
import { request } from "./fetching.js";
import { reportTime, reportedMessages } from "./report.js";
import { moveToWasm, setClock, wasm } from "./wasm.js";

// What `receive` of main.zig answers.
const MALFORMED = 0, UNKNOWN = 1, SAME_INDEX = 3, NEW_INDEX = 4, COVERAGE = 5;
const ENTRY_POINTS = 6, HISTORY = 7, POINTS = 8;
// The tags that matter before main.wasm is there to read the messages.
const CURRENT_TIME = 0, SOURCE_INDEX = 1;
const SUBPROTOCOL = "fuzzserver";
const FIRST_RETRY_MS = 500, LAST_RETRY_MS = 5000;
const PROBE_MS = 5000;
const UNAUTHORIZED = 401;

let socket = null;
// Count connections, indexes and fetches of sources, so that what was begun for an
// earlier one is told apart.
let turn = 0;
let indexTurn = 0;
let sourcesTurn = 0;
let retryMs = FIRST_RETRY_MS;
let retryTimer = null;
// Zig's own server does not answer a subprotocol, and browsers then refuse.
let usesSubprotocol = true;
// The first JSON of a connection replaces all that another server may have said.
let hasText = false;
// The coverage map that the address asks for; null is the first target's current one.
let wanted = wantedByAddress();
// Messages that came before main.wasm was there to read them.
let queued = [];
// What the server calls the index that wasm holds, which it then need not send again;
// null if it is of another map than the one that is wanted, or nobody knows.
let heldIndex = null;
// Whether details are to be loaded with the next coverage: for each index, and for each
// connection, if an earlier one was lost too soon.
let wantsDetails = true;
let unknownLogged = false;
// Whether messages were passed on that main.wasm never got.
let isPlain = false;

export function start() {
  addEventListener("popstate", () => {
    if (wantedByAddress() !== wanted) changeTarget(wantedByAddress());
  });
  // Timers sleep in tabs that nobody sees.
  document.addEventListener("visibilitychange", () => document.hidden || hurry());
  addEventListener("online", hurry);
  on("wasm", onWasm);
  open(usesSubprotocol, false);
}

// Shows another coverage map: one of `targets` by its id, or null for the first target's.
export function setTarget(id) {
  if (id === wanted) return;
  const query = id === null ? location.pathname : targetHref(id);
  try {
    history.pushState(history.state, "", query + location.hash);
  } catch (error) {
    // That of a file need not be changeable.
    console.warn("the address could not be changed:", error.message);
  }
  changeTarget(id);
}

export function targetHref(id) {
  return "?target=" + encodeURIComponent(id);
}

// The id of the map that is shown, or null.
export function targetId() {
  return state.server.target ?? null;
}

// The id that the address asks for, or null.
export function wantedTarget() {
  return wanted;
}

function wantedByAddress() {
  return new URLSearchParams(location.search).get("target");
}

function changeTarget(id) {
  wanted = id;
  // What wasm holds belongs to another map, until the next index comes.
  heldIndex = null;
  state.hasIndex = state.hasCoverage = state.hasPoints = false;
  state.sources = null;
  indexTurn += 1;
  sourcesTurn += 1;
  queued = [];
  retryMs = FIRST_RETRY_MS;
  emit("target");
  open(usesSubprotocol, false);
}

// ------------------------------------------------------------------- socket

function open(withSubprotocol, isSecondTry) {
  clearTimeout(retryTimer);
  retryTimer = null;
  turn += 1;
  if (reportTime !== null) return play(turn);
  const url = new URL(wanted === null ? location.pathname : targetHref(wanted), location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (withSubprotocol && heldIndex !== null) url.searchParams.set("index", heldIndex);
  if (socket !== null) {
    socket.onmessage = socket.onclose = socket.onopen = null;
    socket.close();
  }
  socket = new WebSocket(url, withSubprotocol ? [SUBPROTOCOL] : []);
  let wasOpened = false;
  socket.binaryType = "arraybuffer";
  socket.onmessage = onMessage;
  socket.onopen = () => {
    wasOpened = true;
    onOpen(withSubprotocol);
  };
  // An error is always followed by a close.
  socket.onclose = () => {
    socket = null;
    if (!wasOpened && !isSecondTry) return open(!withSubprotocol, true);
    setLost();
    retryLater();
  };
}

function onOpen(withSubprotocol) {
  usesSubprotocol = state.ownServer = withSubprotocol;
  retryMs = FIRST_RETRY_MS;
  hasText = false;
  wantsDetails = true;
  queued = [];
  setConnection("connected");
  // A server that speaks Zig's messages only never says anything in JSON.
  if (!withSubprotocol) takeServer({});
}

// What a server would say is all in the report. If it cannot be read, main.wasm cannot either, and that is told.
async function play(thisTurn) {
  onOpen(true);
  const messages = await reportedMessages(wanted).catch(() => []);
  if (thisTurn === turn) for (const data of messages) onMessage({ data });
}

function setConnection(connection, wantsToken = false) {
  if (state.connection === connection && state.wantsToken === wantsToken) return;
  Object.assign(state, { connection, wantsToken });
  emit("connection");
}

function setLost(wantsToken = false) {
  setConnection(state.ownServer === null ? "connecting" : "reconnecting", wantsToken);
}

function retryLater() {
  retryTimer = setTimeout(retry, retryMs);
  retryMs = Math.min(retryMs * 1.5, LAST_RETRY_MS);
}

function hurry() {
  if (retryTimer === null) return;
  clearTimeout(retryTimer);
  retryMs = FIRST_RETRY_MS;
  retry();
}

// Some browsers make every WebSocket wait after one has failed, for up to a
// minute, and none tells why it has failed. So none is opened before the server
// answers at all, and lets this browser in.
async function retry() {
  retryTimer = null;
  const thisTurn = turn;
  const status = await probe();
  if (thisTurn !== turn) return;
  if (status !== null && status !== UNAUTHORIZED) return open(usesSubprotocol, false);
  setLost(status === UNAUTHORIZED);
  retryLater();
}

// What the server answers for this page, or null if it does not.
async function probe() {
  const signal = AbortSignal.timeout(PROBE_MS);
  try {
    return (await fetch(location.pathname, { method: "HEAD", cache: "no-store", signal })).status;
  } catch {
    return null;
  }
}

// ----------------------------------------------------------------- messages

function onMessage(event) {
  if (typeof event.data === "string") return onText(event.data);
  const bytes = new Uint8Array(event.data);
  // What the server calls its index stands in the text before it.
  const message = { bytes, time: performance.now(), index: state.server.map?.index ?? null };
  if (state.hasWasm) return onBytes(message);
  if (state.wasmFailure !== null) return readPlainly(message);
  // An index makes worthless what was told of another one.
  if (bytes[0] === SOURCE_INDEX) queued = queued.filter(({ bytes: each }) => each[0] === CURRENT_TIME);
  queued.push(message);
}

function onText(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch (error) {
    console.warn("ignored a text message that is not JSON:", error.message);
    return;
  }
  if (message === null || typeof message !== "object" || Array.isArray(message)) return;
  const { log, ...fields } = message;
  takeServer(fields);
  if (Array.isArray(log?.entries)) emit("log", { whole: log.whole === true, entries: log.entries });
}

function takeServer(told) {
  const before = state.server;
  const fields = { ...told, ...inFull(told, before) };
  delete fields.counts;
  delete fields.splices;
  // Fields that this server does not send are no longer true.
  const changed = hasText ? fields : { ...absent(before), ...fields };
  state.server = hasText ? { ...before, ...fields } : fields;
  hasText = true;
  emit("server", changed);
  if ("findings" in changed) emit("findings");
  if ("marks" in changed) emit("marks");
}

// Fields of which only what has changed was told: the runs of each target's tests, and lists
// that differ from those before in one stretch.
function inFull({ counts, splices = {} }, before) {
  const fields = {};
  if (counts !== undefined) {
    fields.targets = before.targets.map((target, i) => (
      { ...target, tests: target.tests.map((test, j) => ({ ...test, n_runs: counts[i][j] })) }
    ));
  }
  for (const [name, [start, removed, items]] of Object.entries(splices)) {
    fields[name] = [...before[name].slice(0, start), ...items, ...before[name].slice(start + removed)];
  }
  return fields;
}

function absent(fields) {
  return Object.fromEntries(Object.keys(fields).map((name) => [name, undefined]));
}

function onWasm() {
  if (!state.hasWasm && state.wasmFailure === null) return;
  const messages = queued;
  queued = [];
  if (!state.hasWasm) messages.forEach(readPlainly);
  else if (!isPlain) messages.forEach(onBytes);
  // It has missed too much: the server tells all of it again.
  else open(usesSubprotocol, false);
  isPlain = !state.hasWasm;
}

function readPlainly({ bytes }) {
  emit("plain", bytes);
}

// `time`, of performance.now(), is when the message came, which is long ago if wasm had to be compiled first.
function onBytes({ bytes, time, index }) {
  setClock(time);
  // Zig's messages do not say when; the page's clock has to do.
  wasm.setClock((performance.timeOrigin + time) / 1000);
  moveToWasm(bytes);
  const code = wasm.receive() >>> 0;
  setClock(null);
  switch (code) {
    case MALFORMED:
      console.warn(`ignored a malformed message of ${bytes.length} bytes, tag ${bytes[0]}`);
      break;
    case UNKNOWN:
      if (!unknownLogged) console.warn(`ignored messages with the unknown tag ${bytes[0]}`);
      unknownLogged = true;
      break;
    case SAME_INDEX: onSameIndex(index); break;
    case NEW_INDEX: onNewIndex(index); break;
    case COVERAGE: onCoverage(); break;
    case ENTRY_POINTS: emit("entryPoints"); break;
    case HISTORY: emit("history"); break;
  }
}

function onNewIndex(index) {
  heldIndex = index;
  state.hasIndex = true;
  state.hasCoverage = state.hasPoints = false;
  wantsDetails = true;
  indexTurn += 1;
  emit("index");
  // There are no sources before there is an executable, hence not earlier.
  if (state.ownServer === false && wasm.locationCount() > 0) loadSources();
}

// The server has started again, or the reader has gone to another map and come back.
function onSameIndex(index) {
  if (!state.hasIndex) return onNewIndex(index);
  heldIndex = index;
  if (state.sources instanceof Error) loadSources();
}

function onCoverage() {
  state.hasCoverage = true;
  // A slice's length is its high half.
  emit("coverage", Number(BigInt.asUintN(64, wasm.newlyCovered()) >> 32n));
  if (wantsDetails && !state.hasPoints) afterDrawing(loadDetails);
  wantsDetails = false;
}

// ------------------------------------------------------------------ details

// What nobody misses in the first moment: names of functions and times of
// points, then the counts of lines.
async function loadDetails() {
  const thisTurn = indexTurn;
  const id = targetId();
  if (state.ownServer && id !== null) await loadPoints(id, thisTurn);
  whenIdle(() => {
    if (thisTurn !== indexTurn) return;
    wasm.prepareLines();
    emit("lines");
  });
}

async function loadPoints(id, thisTurn) {
  try {
    const response = await request(`points/${encodeURIComponent(id)}`);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (thisTurn !== indexTurn) return;
    moveToWasm(bytes);
    if (wasm.receive() >>> 0 !== POINTS) throw new Error("they are malformed");
    state.hasPoints = true;
    emit("points");
  } catch (error) {
    console.warn("details of the coverage points could not be loaded:", error.message);
  }
}

async function loadSources() {
  const thisTurn = sourcesTurn += 1;
  state.sources = "loading";
  emit("source");
  let outcome = "ready";
  let bytes = null;
  try {
    const response = await fetch("sources.tar");
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    outcome = error;
  }
  // A newer index has asked again meanwhile: the answer to that one counts.
  if (thisTurn !== sourcesTurn) return;
  if (bytes !== null) {
    moveToWasm(bytes);
    wasm.unpack();
  }
  state.sources = outcome;
  emit("source");
}

// In tabs that nobody sees nothing is drawn, and yet the details should come.
function afterDrawing(act) {
  if (document.hidden) setTimeout(act);
  else requestAnimationFrame(() => setTimeout(act));
}

function whenIdle(act) {
  if ("requestIdleCallback" in window) requestIdleCallback(act, { timeout: 2000 });
  else setTimeout(act, 200);
}
