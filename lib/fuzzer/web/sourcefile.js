// Brings a source file into main.wasm: from our own server one by one, from Zig's
// server, which has nothing but a tar of all, out of that.

import { state } from "./bus.js";
import { targetId } from "./connection.js";
import { request } from "./fetching.js";
import { moveToWasm, wasm } from "./wasm.js";

const NONE = 0xffff_ffff;

// Gives {lines, modified}, the latter in Unix seconds or null; or {why}, where there is no
// source to be had; or null, where that is not known yet. Throws if `signal` aborts.
export async function loadSource(file, signal) {
  if (state.ownServer === false) return openFromTar(file);
  const target = targetId();
  if (target === null) return null;
  let response;
  try {
    response = await request(`source/${encodeURIComponent(target)}/${file}`, { signal });
    if (response.ok) return openBytes(file, response, new Uint8Array(await response.arrayBuffer()), signal);
    const why = (await response.text()).trim();
    return { why: why === "" ? `The server answered ${response.status}.` : why };
  } catch (error) {
    signal.throwIfAborted();
    return { why: `The source could not be loaded: ${error.message}`, isTemporary: true };
  }
}

function openBytes(file, response, bytes, signal) {
  signal.throwIfAborted();
  moveToWasm(bytes);
  const lines = wasm.openSource(file) >>> 0;
  const modified = Date.parse(response.headers.get("last-modified") ?? "") / 1000;
  return { lines, modified: Number.isNaN(modified) ? null : modified };
}

function openFromTar(file) {
  if (state.sources === null || state.sources === "loading") return null;
  if (state.sources instanceof Error) {
    return { why: `The sources could not be loaded: ${state.sources.message}`, isTemporary: true };
  }
  const lines = wasm.openTarSource(file) >>> 0;
  return lines === NONE ? { why: "The server sent no source of this file." } : { lines, modified: null };
}
