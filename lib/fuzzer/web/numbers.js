// The numbers of the fuzzing at large.

import { on, state } from "./bus.js";
import { byId, element, everyFrame, setBar, setNumber, setText, setTitle } from "./dom.js";
import { clockTime, count, counted, duration, percent, readable } from "./format.js";
import { reportTime, unixNow } from "./report.js";
import { count64, f32s, u32s, wasm } from "./wasm.js";

const TICK_MS = 1000;
// What `historyColumns` of main.zig gives, and the seconds that `recentSpeed` looks back.
const SPEED = 2, RECENT = 10;

// The files that are not Zig's own, where there are files of both kinds: what the reader wrote is
// little beside the standard library.
let ownFiles = [];

export function start() {
  on("index", findOwnFiles);
  const render = everyFrame(renderNumbers);
  for (const event of ["index", "coverage", "points", "lines", "findings"]) on(event, render);
  on("pause", render);
  // Without reports the speed falls, and the last new coverage gets older.
  setInterval(() => state.paused || renderTicking(), TICK_MS);
}

function renderNumbers() {
  renderFindings();
  if (!state.hasCoverage) return;
  const runs = count64(wasm.totalRuns());
  const unique = count64(wasm.uniqueRuns());
  const total = wasm.locationCount() >>> 0;
  const covered = wasm.coveredCount() >>> 0;
  setText(byId("statCoverage"), percent(covered, total));
  setText(byId("statPoints"), `${count(covered)} / ${counted(total, "point")}`);
  setBar(byId("coverageBar"), covered, total);
  renderOwn();
  setNumber(byId("statTotalRuns"), runs);
  setNumber(byId("statUniqueRuns"), unique);
  setTitle(byId("statUniqueRuns"), `${count(unique)}: ${percent(unique, runs)} of the runs reached new code paths`);
  setPart(byId("statLines"), wasm.linesCovered() >>> 0, wasm.linesTotal() >>> 0, "lines with coverage points");
  setPart(byId("statFunctions"), wasm.functionsCovered() >>> 0, wasm.functionCount() >>> 0, "functions entered");
  setPart(byId("statFiles"), wasm.filesCovered() >>> 0, wasm.filesTotal() >>> 0, "files with coverage points");
  renderTicking();
}

function findOwnFiles() {
  const all = Array.from({ length: wasm.fileCount() }, (_, file) => file).filter((file) => wasm.fileTotal(file) > 0);
  ownFiles = all.filter((file) => !wasm.fileIsStd(file));
  if (ownFiles.length === all.length) ownFiles = [];
}

function renderOwn() {
  let covered = 0, total = 0;
  for (const file of ownFiles) {
    covered += wasm.fileCovered(file) >>> 0;
    total += wasm.fileTotal(file) >>> 0;
  }
  const dom = byId("statOwn");
  dom.hidden = ownFiles.length === 0;
  setText(dom, `${percent(covered, total)} without std`);
  setTitle(dom, `${count(covered)} / ${counted(total, "point")}`);
}

function renderTicking() {
  if (!state.hasCoverage) return;
  setNumber(byId("statRecentSpeed"), recentSpeed());
  // The coverage file remembers the runs of earlier sessions.
  setNumber(byId("statSpeed"), wasm.averageSpeed(Number(state.server.start_n_runs ?? 0)));
  const newest = u32s(wasm.newest(1));
  const time = newest.length > 0 ? wasm.pointTime(newest[0]) : 0;
  // 0 and 1 are no times: nothing is covered, or was before anybody looked.
  const isKnown = time > 1;
  setText(byId("statSinceNew"), isKnown ? `${duration(unixNow() - time)} ago` : "–");
  setTitle(byId("statSinceNew"), isKnown ? clockTime(time) : "Nothing new since the server watches");
}

// In a report nothing moves: how fast it was then, its history tells.
function recentSpeed() {
  if (reportTime === null) return wasm.recentSpeed();
  return f32s(wasm.historyColumns(reportTime - RECENT, reportTime, 1, SPEED))[0];
}

function renderFindings() {
  const findings = state.server.findings?.length ?? 0;
  const dom = byId("statFindings");
  dom.classList.toggle("bad", findings > 0);
  if (dom.firstElementChild === null) dom.replaceChildren(element("a", { href: "#findings" }));
  setText(dom.firstElementChild, state.ownServer ? count(findings) : "–");
}

// "12 / 34", the whole less loud than the part.
function setPart(dom, part, whole, noun) {
  if (dom.firstElementChild === null) dom.replaceChildren(element("span"), element("span", { class: "whole" }));
  setText(dom.firstElementChild, whole === 0 ? "–" : readable(part));
  setText(dom.lastElementChild, whole === 0 ? "" : ` / ${readable(whole)}`);
  setTitle(dom, whole === 0 ? "" : `${count(part)} of ${count(whole)} ${noun} (${percent(part, whole)})`);
}
