// The targets: which one is shown, and the list of all of them with their
// builds and tests, below the button that names the one shown.

import { on, state } from "./bus.js";
import { setTarget, targetHref, targetId, wantedTarget } from "./connection.js";
import { byId, element, everyFrame, setBadge, setRows, setText, setTitle } from "./dom.js";
import { count, counted, percent, readable } from "./format.js";
import { addKey } from "./keys.js";
import { wasm } from "./wasm.js";

const NARROW_PX = 600;
const MARGIN_PX = 12;

let render = null;

export function start() {
  render = everyFrame(renderTargets);
  for (const event of ["server", "coverage", "index", "target"]) on(event, render);
  const popover = byId("targetPopover");
  popover.addEventListener("beforetoggle", (event) => event.newState === "open" && onOpening());
  popover.addEventListener("toggle", (event) => event.newState === "open" && focusShown());
  popover.addEventListener("keydown", onKeyDown);
  popover.addEventListener("click", onClick);
  addKey("g", "Targets and their tests", () => byId("targetButton").hidden || popover.togglePopover());
  renderTargets();
}

// The targets that the server tells; servers that know one target only tell none.
export function targetList() {
  return Array.isArray(state.server.targets) ? state.server.targets : [];
}

// Before any coverage is known, the first target is the one that will be shown.
export function shownTarget() {
  const targets = targetList();
  const id = targetId();
  if (id === null) return wantedTarget() === null ? targets[0] : undefined;
  return targets.find((target) => target.id === id) ?? targets.find((target) => target.earlier.includes(id));
}

export function isUnknownTarget() {
  return wantedTarget() !== null && state.server.target === null;
}

// Which build of its target is shown: {number, total, current} with the id of
// the newest one (null before its fuzzer has reported), or null if it is that.
export function earlierBuild() {
  const target = shownTarget();
  if (target === undefined) return null;
  const number = buildIds(target).indexOf(targetId()) + 1;
  const total = buildIds(target).length;
  return number > 0 && number < total ? { number, total, current: target.id } : null;
}

function buildIds(target) {
  return [...target.earlier.filter((id) => id !== target.id), target.id];
}

// ------------------------------------------------------------------- popover

function onOpening() {
  const box = byId("targetButton").getBoundingClientRect();
  const dom = byId("targetPopover");
  dom.style.setProperty("--left", `${innerWidth < NARROW_PX ? MARGIN_PX : box.left}px`);
  dom.style.setProperty("--top", `${box.bottom + 4}px`);
  renderList();
}

function focusShown() {
  (byId("targetList").querySelector('a[aria-current="true"]') ?? byId("targetList").querySelector("a"))?.focus();
}

function onKeyDown(event) {
  const links = [...byId("targetList").querySelectorAll("a")];
  const current = links.indexOf(document.activeElement);
  const next = {
    ArrowDown: Math.min(current + 1, links.length - 1),
    ArrowUp: Math.max(current - 1, 0),
    Home: 0,
    End: links.length - 1,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  links[next]?.focus();
}

function onClick(event) {
  const link = event.target.closest("a");
  if (link === null || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  byId("targetPopover").hidePopover();
  setTarget(link.dataset.id);
}

// ------------------------------------------------------------------- render

function renderTargets() {
  const targets = targetList();
  const shown = shownTarget();
  const button = byId("targetButton");
  button.hidden = targets.length === 0;
  setText(byId("targetName"), shown?.name ?? "choose a target");
  // A lone target seldom does what the server, whose badge is beside it, does not.
  byId("targetState").hidden = shown === undefined || (targets.length === 1 && shown.state === state.server.state);
  if (shown !== undefined) setBadge(byId("targetState"), shown.state);
  const others = targets.length - 1;
  setTitle(button, `${others > 0 ? `${counted(others, "more target")}; ` : ""}targets and their tests (g)`);
  // What nobody sees is made when it is opened.
  if (byId("targetPopover").matches(":popover-open")) renderList();
}

function renderList() {
  const shown = shownTarget();
  setRows(byId("targetList"), targetList(), makeTarget, (row, target) => renderTarget(row, target, target === shown));
}

function makeTarget() {
  return element("li", {},
    element("div", { class: "targetHead" },
      element("a", { class: "name" }),
      element("span", { class: "badge" }),
      element("span", { class: "covered muted" }),
    ),
    element("p", { class: "why" }),
    element("pre", { class: "log", tabIndex: 0 }),
    element("table", {}, element("tbody")),
    element("p", { class: "builds muted" }),
  );
}

function renderTarget(row, target, isShown) {
  const [head, why, log, table, builds] = row.children;
  const [link, badge, covered] = head.children;
  setText(link, target.name);
  setLink(link, target.id, isShown && targetId() === target.id);
  setTitle(link, target.id === null ? "It has not reported its coverage yet" : "");
  setBadge(badge, target.state);
  const total = isShown && state.hasCoverage ? wasm.locationCount() : 0;
  const part = total > 0 ? wasm.coveredCount() >>> 0 : 0;
  setText(covered, total > 0 ? `${count(part)} / ${count(total)} points (${percent(part, total)})` : "");
  const text = target.text.trim();
  const isLog = text.includes("\n");
  setText(why, isLog ? "" : text);
  setText(log, isLog ? text : "");
  why.hidden = why.textContent === "";
  log.hidden = !isLog;
  table.hidden = target.tests.length === 0;
  setRows(table.tBodies[0], target.tests, makeTest, renderTest);
  renderBuilds(builds, target);
}

function setLink(link, id, isCurrent) {
  if (id === null) {
    link.removeAttribute("href");
  } else {
    link.dataset.id = id;
    if (link.getAttribute("href") !== targetHref(id)) link.href = targetHref(id);
  }
  link.setAttribute("aria-current", isCurrent);
}

function makeTest() {
  return element("tr", {},
    element("th", { attributes: { scope: "row" } },
      element("span", { class: "name" }),
      element("span", { class: "why" }),
    ),
    element("td", {}, element("span", { class: "badge" })),
    element("td"), element("td"), element("td"),
  );
}

function renderTest(row, test) {
  const [head, badge, runs, restarts, findings] = row.children;
  setText(head.firstElementChild, test.name);
  setText(head.lastElementChild, test.text.trim());
  setBadge(badge.firstElementChild, test.state);
  setText(runs, test.n_runs === null ? "" : `${readable(test.n_runs)} ${test.n_runs === 1 ? "run" : "runs"}`);
  setTitle(runs, test.n_runs === null ? "" : counted(test.n_runs, "run"));
  setText(restarts, test.restarts > 0 ? counted(test.restarts, "restart") : "");
  setText(findings, test.findings > 0 ? counted(test.findings, "finding") : "");
}

function renderBuilds(dom, target) {
  const ids = buildIds(target).filter((id) => id !== null);
  dom.hidden = ids.length < 2 && (ids.length === 0 || target.id !== null);
  if (dom.hidden) return;
  setRows(dom, ids, () => element("a"), (link, id, i) => {
    setText(link, `build ${i + 1}`);
    setTitle(link, id === target.id ? "the newest" : id);
    setLink(link, id, id === targetId());
  });
}
