// What every module may know, and how they tell each other that it has changed.
// Handlers run in the order in which they were registered, within `emit`.

export const state = {
  // The last value of each field that the server has sent as JSON.
  server: {},
  // "connecting", "connected" or "reconnecting".
  connection: "connecting",
  // Whether the server answers, but lets this browser in no more: it has another token than before.
  wantsToken: false,
  // Whether the server speaks our subprotocol; null until one has answered.
  ownServer: null,
  // Whether main.wasm runs, and what it holds of the map that is shown.
  hasWasm: false,
  hasIndex: false,
  hasCoverage: false,
  hasPoints: false,
  // The sources as one tar, from servers that give no single ones: null, "loading", "ready" or an Error.
  sources: null,
  paused: false,
  // Why main.wasm could not be loaded: {text, log}, or null.
  wasmFailure: null,
};

// A page may be paused for days: as much as the server keeps will do.
const LOG_ENTRIES = 1000;

// What waits while the page is paused, and how two values of it become one.
const HELD = {
  server: (before, value) => ({ ...before, ...value }),
  findings: (_, value) => value,
  marks: (_, value) => value,
  log: (before, value) => value.whole ? value :
    { whole: before.whole, entries: [...before.entries, ...value.entries].slice(-LOG_ENTRIES) },
  coverage: (before, value) => before + value,
  entryPoints: (_, value) => value,
  history: (_, value) => value,
};

const handlers = new Map();
const held = new Map();

export function on(event, handler) {
  if (!handlers.has(event)) handlers.set(event, []);
  handlers.get(event).push(handler);
}

export function emit(event, value) {
  if (state.paused && event in HELD) {
    held.set(event, held.has(event) ? HELD[event](held.get(event), value) : value);
    return;
  }
  for (const handler of handlers.get(event) ?? []) {
    try {
      handler(value);
    } catch (error) {
      console.error(error);
    }
  }
}

export function setPaused(paused) {
  state.paused = paused;
  emit("pause", paused);
  if (paused) return;
  const waiting = [...held];
  held.clear();
  for (const [event, value] of waiting) emit(event, value);
}
