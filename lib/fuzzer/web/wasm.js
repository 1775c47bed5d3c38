// main.wasm: loading it, giving it bytes, and reading what it answers.

import { emit, state } from "./bus.js";
import { request } from "./fetching.js";

// The exports of main.wasm once it runs; empty before.
export const wasm = {};

// `module` is main.wasm compiled, where the loader has needed it already.
export async function loadWasm(module = null) {
  state.wasmFailure = null;
  emit("wasm");
  try {
    if (module !== null) run(await WebAssembly.instantiate(module, IMPORTS));
    else await fetchWasm();
  } catch (error) {
    state.wasmFailure = { text: String(error), log: "" };
  }
  emit("wasm");
}

async function fetchWasm() {
  const response = await request("main.wasm");
  if (response.ok) {
    run((await WebAssembly.instantiateStreaming(response, IMPORTS)).instance);
  } else {
    state.wasmFailure = { text: `The server answered ${response.status}.`, log: await response.text() };
  }
}

function run(instance) {
  Object.assign(wasm, instance.exports);
  state.hasWasm = true;
}

// What wasm takes for the time, of performance.now(); null for the real one.
let clock = null;

const IMPORTS = {
  js: {
    clock: () => clock ?? performance.now(),
    log: (ptr, len) => console.log(decode(ptr >>> 0, len >>> 0)),
  },
};

// Its memory may grow, which invalidates every view of it: views are made after
// the call that may do so, and never kept.
export function moveToWasm(bytes) {
  const ptr = wasm.inbox(bytes.length) >>> 0;
  new Uint8Array(wasm.memory.buffer, ptr, bytes.length).set(bytes);
}

// For messages that are read later than they came.
export function setClock(time) {
  clock = time;
}

export function text(slice) {
  return decode(pointer(slice), length(slice));
}

// The arrays are copies, which later calls leave alone.
export function u32s(slice) {
  return new Uint32Array(wasm.memory.buffer, pointer(slice), length(slice)).slice();
}

export function u8s(slice) {
  return new Uint8Array(wasm.memory.buffer, pointer(slice), length(slice)).slice();
}

export function f32s(slice) {
  return new Float32Array(wasm.memory.buffer, pointer(slice), length(slice)).slice();
}

// A u64 arrives as a signed BigInt.
export function count64(value) {
  return Number(BigInt.asUintN(64, value));
}

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

export function decode(start, len) {
  return DECODER.decode(new Uint8Array(wasm.memory.buffer, start, len));
}

// A slice comes as one integer: pointer low, length high.
function pointer(slice) {
  return Number(BigInt.asUintN(32, slice));
}

function length(slice) {
  return Number(BigInt.asUintN(64, slice) >> 32n);
}
