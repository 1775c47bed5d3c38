// Starts the page from its modules. Zig's own server has no routes to them, only
// to this file and to main.wasm, which therefore carries a copy of the others.

const IMPORT = /(?<=\bfrom )"\.\/([\w-]+\.js)"(?=;$)/gm;

async function start() {
  try {
    (await import("./app.js")).start(null);
  } catch (error) {
    // What the server does have is broken, and would be so a second time.
    if ((await fetch("app.js", { method: "HEAD" })).ok) throw error;
    const module = await compileWasm();
    const { exports } = await WebAssembly.instantiate(module, { js: { clock: () => 0, log: () => {} } });
    adoptStyle(exports);
    (await import(appUrl(exports))).start(module);
  }
}

async function compileWasm() {
  const response = await fetch("main.wasm");
  if (!response.ok) throw new Error(await response.text());
  return WebAssembly.compileStreaming(response);
}

function adoptStyle(exports) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(readText(exports, exports.styleSheet()));
  document.adoptedStyleSheets = [sheet];
}

// A module can only be imported by an address: each gets one of its own, those
// that it imports before it.
function appUrl(exports) {
  const texts = new Map();
  for (let i = 0; i < exports.moduleCount(); i += 1) {
    texts.set(readText(exports, exports.moduleName(i)), readText(exports, exports.moduleText(i)));
  }
  const urls = new Map();
  const urlOf = (name) => {
    if (!urls.has(name)) {
      const text = texts.get(name).replace(IMPORT, (_, imported) => `"${urlOf(imported)}"`);
      urls.set(name, URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    }
    return urls.get(name);
  };
  return urlOf("app.js");
}

// A slice comes as one integer: pointer low, length high.
function readText(exports, slice) {
  const ptr = Number(BigInt.asUintN(32, slice));
  return new TextDecoder().decode(new Uint8Array(exports.memory.buffer, ptr, Number(BigInt.asUintN(64, slice) >> 32n)));
}

start().catch((error) => {
  console.error(error);
  document.getElementById("status").textContent = "The page could not start.";
  document.getElementById("noticeTitle").textContent = "The page could not start";
  document.getElementById("noticeLog").textContent = String(error.message);
  document.getElementById("noticeLog").hidden = false;
  document.getElementById("notice").hidden = false;
});
