// Which parts of the page are shown: the overview, and one of the four views.

import { on, state } from "./bus.js";
import { byId, everyFrame, setText } from "./dom.js";
import { count } from "./format.js";
import { addKey } from "./keys.js";
import { go, route } from "./route.js";
import { wasm } from "./wasm.js";

const VIEWS = {
  coverage: { section: "viewCoverage", key: "1" },
  findings: { section: "viewFindings", key: "2" },
  corpus: { section: "viewCorpus", key: "3" },
  log: { section: "viewLog", key: "4" },
};
// Another target is usually there at once: nothing should flicker meanwhile.
const GONE_MS = 300;

let showsOld = false;

export function start() {
  const render = everyFrame(renderViews);
  for (const event of ["route", "index", "coverage", "connection", "server", "wasm"]) on(event, render);
  on("target", () => {
    showsOld = true;
    setTimeout(() => {
      showsOld = false;
      render();
    }, GONE_MS);
    render();
  });
  for (const [view, { key }] of Object.entries(VIEWS)) {
    addKey(key, `Show ${view === "log" ? "the log" : view}`, () => state.ownServer && go("#" + view));
  }
  renderViews();
}

function renderViews() {
  const hasPoints = state.hasIndex && wasm.locationCount() > 0;
  document.body.classList.toggle("stale", showsOld && !state.hasIndex);
  byId("overview").hidden = !state.hasCoverage && !showsOld;
  // Zig's own server tells of coverage, and of nothing else.
  byId("views").hidden = !state.ownServer;
  for (const link of byId("views").children) {
    if (link.dataset.view === route.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const [view, { section }] of Object.entries(VIEWS)) {
    const isThere = view !== "coverage" || hasPoints || showsOld;
    byId(section).hidden = view !== route.view || !isThere;
  }
  const findings = state.server.findings?.length ?? 0;
  setText(byId("viewsFindings"), findings > 0 ? count(findings) : "");
}
