// What a page can try against a server on the same machine. Each attempt gives
// what it got hold of as a text, or "" if that is nothing.

// An attempt that is told nothing for so long was told nothing.
const PATIENCE_MS = 30_000;
const LOOK_MS = 50, FOREIGN_LOOKS = 20;
const SMUGGLED = "GET /main.wasm HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

const ATTEMPTS = {
  "script": (victim) => loaded("script", { src: victim + "app.js" }),
  "script of data": (victim) => loaded("script", { src: victim + "targets.json" }),
  "module script": (victim) => loaded("script", { type: "module", src: victim + "app.js" }),
  "module script with credentials": (victim) =>
    loaded("script", { type: "module", crossOrigin: "use-credentials", src: victim + "format.js" }),
  "import()": async (victim) => Object.keys(await import(victim + "names.js")).join(" "),
  "style sheet": (victim) => loaded("link", { rel: "stylesheet", href: victim + "style.css" }),
  "prefetch": (victim) => loaded("link", { rel: "prefetch", href: victim + "sources.tar" }),
  "preload": (victim) => loaded("link", { rel: "preload", as: "script", href: victim + "main.js" }),
  "image": (victim) => loaded("img", { src: victim + "main.wasm" }),
  "video": (victim) => loaded("video", { src: victim + "main.wasm", preload: "auto" }, "loadeddata"),
  "object": (victim) => loaded("object", { type: "text/html", data: victim }),
  "embed": (victim) => shownIn("embed", { src: victim + "main.js" }),
  "frame of the page": (victim) => shownIn("iframe", { src: victim }),
  "frame of data": (victim) => shownIn("iframe", { src: victim + "targets.json" }),
  "frame of the sources": (victim) => shownIn("iframe", { src: victim + "sources.tar" }),
  "fetch": (victim) => answered(victim + "targets.json"),
  "fetch with credentials": (victim) => answered(victim + "sources.tar", { credentials: "include" }),
  "fetch without reading": (victim) => answered(victim + "sources.tar", { mode: "no-cors" }),
  "fetch of the compiler": (victim) => answered(victim + "main.wasm", { mode: "no-cors" }),
  "fetch with a header": (victim) => answered(victim + "targets.json", { headers: { "x-requested-with": "me" } }),
  "post": (victim) => answered(victim + "main.wasm", { method: "POST", mode: "no-cors", body: SMUGGLED }),
  "XMLHttpRequest": (victim) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.onload = () => done(request.status === 200 ? request.responseText : "");
    request.onerror = () => done("");
    request.open("GET", victim + "targets.json");
    request.send();
  }),
  "WebSocket": (victim) => heard(new WebSocket(victim.replace("http", "ws"))),
  "WebSocket with the subprotocol": (victim) => heard(new WebSocket(victim.replace("http", "ws"), "fuzzserver")),
  "EventSource": (victim) => heard(new EventSource(victim + "targets.json")),
  "beacon": (victim) => {
    navigator.sendBeacon(victim + "main.wasm", SMUGGLED);
    return "";
  },
  "form": (victim) => submitted("POST", victim + "main.wasm"),
  "form that asks": (victim) => submitted("GET", victim + "main.wasm"),
  "worker": (victim) => heard(new Worker(victim + "format.js", { type: "module" })),
  "shared worker": (victim) => heard(new SharedWorker(victim + "format.js", { type: "module" })),
  "service worker": async (victim) => (await navigator.serviceWorker.register(victim + "format.js")).scope,
  "wasm": async (victim) => {
    const module = await WebAssembly.compileStreaming(fetch(victim + "main.wasm"));
    return `compiled ${WebAssembly.Module.exports(module).length}`;
  },
  "window of the compiler": (victim) => opened(victim + "main.wasm"),
  "window of the sources": (victim) => opened(victim + "sources.tar"),
};

/** Does what one of `ATTEMPTS` does to the server at the address `victim`. */
async function attempt(name, victim) {
  try {
    return await Promise.race([ATTEMPTS[name](victim), later(PATIENCE_MS).then(() => "")]);
  } catch {
    return "";
  }
}

// That there is an answer that cannot be read is something, too; a refusal is not.
async function answered(url, options) {
  const response = await fetch(url, options);
  if (response.type === "opaque") return "an answer";
  return response.status < 403 ? `${response.status} ${await response.text()}` : "";
}

function put(tag, properties) {
  const dom = Object.assign(document.createElement(tag), properties);
  document.body.append(dom);
  return dom;
}

function loaded(tag, properties, event = "load") {
  return new Promise((done) => {
    const dom = put(tag, { ["on" + event]: () => done(event), onerror: () => done(""), ...properties });
    setTimeout(() => dom.remove(), PATIENCE_MS);
  });
}

// Whether something is shown in a frame cannot be told by its events: pages
// that the browser puts in the place of what it must not show have them, too.
function shownIn(tag, properties) {
  return new Promise((done) => {
    const dom = put(tag, properties);
    dom.onload = () => {
      let text = "";
      try {
        const shown = dom.contentDocument ?? dom.getSVGDocument();
        if (shown.URL !== "about:blank") text = shown.body.innerText;
      } catch {
        // It belongs to another origin.
      }
      done(text);
      dom.remove();
    };
  });
}

function submitted(method, action) {
  const { name } = put("iframe", { name: `answer to ${method}` });
  put("form", { method, action, enctype: "text/plain", target: name }).submit();
  return "";
}

function heard(source) {
  return new Promise((done) => {
    source.onopen = () => done("opened");
    source.onmessage = (event) => done(String(event.data));
    source.onerror = () => done("");
  });
}

// What a page learns of a window that it has opened: its text, or that it holds
// a page of somebody else, which this one may then lead elsewhere. What belongs
// to somebody else may still be on its way out of reach.
async function opened(url) {
  const other = open(url);
  for (let foreign = 0; foreign < FOREIGN_LOOKS; await later(LOOK_MS)) {
    if (other === null || other.closed) return "";
    try {
      const text = other.document.body?.innerText ?? "";
      if (text !== "") return text;
    } catch {
      foreign += 1;
    }
  }
  return "a page";
}

function later(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
