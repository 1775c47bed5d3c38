// The half of the page that draws: it loads main.wasm, carries bytes from the
// server into it, asks it what they mean, and keeps the document up to date.
// It reads no bytes itself, and takes from wasm only what it shows.

const domStyleLink = byId("styleLink");
const domConnection = byId("connection");
const domServerState = byId("serverState");
const domStatus = byId("status");
const domSectNotice = byId("sectNotice");
const domNoticeTitle = byId("noticeTitle");
const domNoticeText = byId("noticeText");
const domNoticeLog = byId("noticeLog");
const domNoticeLink = byId("noticeLink");
const domNoticeRetry = byId("noticeRetry");
const domSectTargets = byId("sectTargets");
const domTargetList = byId("targetList");
const domTargetBuild = byId("targetBuild");
const domTargetBuildNote = byId("targetBuildNote");
const domTargetBuildText = byId("targetBuildText");
const domTargetBuildLink = byId("targetBuildLink");
const domTargetBuilds = byId("targetBuilds");
const domTargetTexts = byId("targetTexts");
const domTestScroll = byId("testScroll");
const domTestRows = byId("testRows");
const domSectFindings = byId("sectFindings");
const domFindingsTitle = byId("findingsTitle");
const domFindingRows = byId("findingRows");
const domFindingsAll = byId("findingsAll");
const domSectStats = byId("sectStats");
const domStatTotalRuns = byId("statTotalRuns");
const domStatUniqueRuns = byId("statUniqueRuns");
const domStatSpeed = byId("statSpeed");
const domStatRecentSpeed = byId("statRecentSpeed");
const domStatCoverage = byId("statCoverage");
const domCoverageBar = byId("coverageBar");
const domEntryPoints = byId("entryPoints");
const domEntryPointsList = byId("entryPointsList");
const domSectFiles = byId("sectFiles");
const domFileFilter = byId("fileFilter");
const domFileScroll = byId("fileScroll");
const domFileHeads = byId("fileHeads");
const domFileRows = byId("fileRows");
const domFilesNote = byId("filesNote");
const domSectSource = byId("sectSource");
const domSourceTitle = byId("sourceTitle");
const domSourceCoverage = byId("sourceCoverage");
const domLegend = byId("legend");
const domNextUncovered = byId("nextUncovered");
const domSourceNote = byId("sourceNote");
const domSourceCode = byId("sourceCode");
const domSourceLines = byId("sourceLines");
const domSourceText = byId("sourceText");
const domSourcePoints = byId("sourcePoints");
const domPointRows = byId("pointRows");
const domTargetTemplate = byId("targetTemplate");
const domBuildTemplate = byId("buildTemplate");
const domTargetTextTemplate = byId("targetTextTemplate");
const domTestTemplate = byId("testTemplate");
const domFindingTemplate = byId("findingTemplate");

// What `receive` of main.zig answers.
const MALFORMED = 0, UNKNOWN = 1, SAME_INDEX = 3, NEW_INDEX = 4, COVERAGE = 5, ENTRY_POINTS = 6;
// The one tag that matters before main.wasm is there to read the message.
const SOURCE_INDEX = 1;
const SUBPROTOCOL = "fuzzserver";
const RECENT_MS = 10_000;
// A table of more rows than this makes every browser slow, and nobody reads it.
const MAX_FILE_ROWS = 500;
// More findings than these are shown on demand: the coverage should stay in sight.
const NEWEST_FINDINGS = 5;
// Made once: a formatter costs more than a thousand numbers.
const NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SMALL_NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const LARGE_NUMBERS = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const CLOCK_TIMES = new Intl.DateTimeFormat("sv-SE", { timeStyle: "medium" });
const DATE_TIMES = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const RELATIVE_TIMES = new Intl.RelativeTimeFormat("en-US", { numeric: "auto" });
const TIME_UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const SORT_VALUES = {
  path: (file) => file.path,
  uncovered: (file) => file.total - file.covered,
  points: (file) => file.total,
  part: (file) => file.covered / file.total,
};
const GOOD_STATES = ["fuzzing"], BAD_STATES = ["failed", "crashed"];
// Why there is no coverage, if the server does not say it better.
const SERVER_STATES = {
  building: "The server is building the tests.",
  waiting: "The server is waiting for the fuzzer to start.",
  fuzzing: "The fuzzer runs and has not reported its coverage yet.",
  serving: "The server has no coverage to show.",
  stopped: "The fuzzer has stopped.",
  failed: "Something failed on the server.",
};

// The exports of main.wasm once it runs; until then the last message of each
// kind waits in `queued`.
let wasm = null;
let wasmFailure = null;
const queued = new Map();
let unknownLogged = false;

let isConnected = false;
let wasConnected = false;
// Zig's own server does not answer a subprotocol, and browsers then refuse.
let usesSubprotocol = true;
let reconnectMs = 1000;
// The last JSON object from the server: {state, text, start_n_runs, target, targets,
// findings}. Servers that know one target only do not send the last three.
let server = {};
// The coverage map that the address asks for; null is the first target's current one.
const wantedMap = new URLSearchParams(location.search).get("target");

// What is drawn of the findings, by their ids: {finding, detail, dom}; detail is what
// the server says of one finding when it is opened, or null.
const findingRows = new Map();
let showsAllFindings = false;

let hasIndex = false;
let hasCoverage = false;
let sources = "none"; // "none", "loading", "ready" or an Error
let sourcesTurn = 0;
// Recent reports of the fuzzer, for its speed: {time, runs}.
let samples = [];

// One object for each file with locations: {index, path, total, covered, row}.
let files = [];
// How much of their paths all files share, and no reader needs.
let prefixLength = 0;
let sortKey = "uncovered";
let sortDescending = true;

// What the address asks for: {file, location, path, place} or null. The last two
// find it again after the executable has changed; location and place are missing
// where only a file is asked for.
let open = null;
// The elements of the locations in the open file, by line and column.
let marks = [];
// Where to scroll once the open source is there; null if nothing is to be done.
let pendingReveal = { scroll: history.state?.scroll };
let saveScrollTimer = null;

// ------------------------------------------------------------------- events

function onSocketOpen(withSubprotocol) {
  isConnected = wasConnected = true;
  usesSubprotocol = withSubprotocol;
  reconnectMs = 1000;
  samples = [];
  // Who answers now may be another server, with another view of its state.
  server = {};
  renderStatus();
  // Targets and findings stay until the server tells them anew, unless it will not.
  if (!withSubprotocol) renderServer();
}

function onSocketMessage(event) {
  if (typeof event.data === "string") return onServerText(event.data);
  const bytes = new Uint8Array(event.data);
  if (wasm !== null) return onServerBytes(bytes);
  // In order of arrival, and without the older message of the same kind.
  queued.delete(bytes[0]);
  queued.set(bytes[0], bytes);
  renderNotice();
}

function onServerText(text) {
  try {
    const message = JSON.parse(text);
    // Each message has some of the fields: those that have changed together.
    if (message !== null && typeof message === "object") server = { ...server, ...message };
  } catch (error) {
    console.warn("ignored a text message that is not JSON:", error.message);
    return;
  }
  renderServer();
}

function onServerBytes(bytes) {
  moveToWasm(bytes);
  switch (wasm.receive()) {
    case MALFORMED:
      console.warn(`ignored a malformed message of ${bytes.length} bytes, tag ${bytes[0]}`);
      break;
    case UNKNOWN:
      if (!unknownLogged) console.warn(`ignored messages with the unknown tag ${bytes[0]}`);
      unknownLogged = true;
      break;
    case SAME_INDEX: onSameIndex(); break;
    case NEW_INDEX: onNewIndex(); break;
    case COVERAGE: onCoverage(); break;
    case ENTRY_POINTS: renderEntryPoints(); break;
  }
}

function onSameIndex() {
  if (sources instanceof Error) loadSources();
}

function onNewIndex() {
  hasIndex = true;
  hasCoverage = false;
  samples = [];
  files = [];
  for (let index = 0; index < wasm.fileCount(); index += 1) {
    const total = wasm.fileTotal(index);
    if (total > 0) files.push({ index, path: wasmText(wasm.filePath(index)), total, covered: 0, row: null });
  }
  prefixLength = commonPrefixLength(files.map((file) => file.path));
  pendingReveal ??= { scroll: scrollY };
  // There are no sources before there is an executable, hence not earlier.
  if (files.length > 0 && (sources === "none" || wasm.missingSources() > 0)) loadSources();
  followOpenFile();
  renderStats();
  renderEntryPoints();
  renderFiles();
  for (const row of findingRows.values()) renderStack(row);
  renderStatus();
}

function onCoverage() {
  hasCoverage = true;
  // Rows never move under a pointer, a focus or a reading eye. Asked before
  // anything is changed, since the answer needs a finished layout.
  const maySort = domFileScroll.scrollTop === 0 && !domSectFiles.matches(":hover, :focus-within");
  samples.push({ time: performance.now(), runs: wasmCount(wasm.totalRuns()) });
  // A count that falls means another coverage file: nothing to compare with.
  if (samples.length > 1 && samples.at(-2).runs > samples.at(-1).runs) samples = samples.slice(-1);
  renderStats();
  for (const file of files) {
    const covered = wasm.fileCovered(file.index);
    if (covered === file.covered) continue;
    file.covered = covered;
    if (file.row !== null) renderFileRow(file);
  }
  if (maySort) renderFiles();
  renderMarks();
  renderStatus();
}

function onPopState(event) {
  const scroll = event.state?.scroll;
  // A fresh link comes without a state; going back finds the one it left.
  pendingReveal = { scroll };
  navigate();
}

function onScroll() {
  clearTimeout(saveScrollTimer);
  // Browsers refuse too many changes of the history: one after the scrolling.
  saveScrollTimer = setTimeout(() => {
    if (pendingReveal === null) history.replaceState({ scroll: scrollY }, "");
  }, 150);
}

function onHeadClick(event) {
  const key = event.target.dataset.key;
  if (key === undefined) return;
  sortDescending = key === sortKey ? !sortDescending : key !== "path";
  sortKey = key;
  renderFiles();
}

function onSourceClick(event) {
  const id = event.target.id;
  if (/^l\d+$/.test(id)) location.hash = id;
}

function onNextUncovered() {
  const indexes = marks.map((mark) => +mark.id.slice(1));
  const current = indexes.indexOf(open.location);
  // From the current place to the end, and then once more from the start.
  const rest = indexes.slice(current + 1).concat(indexes.slice(0, current + 1));
  const next = rest.find((index) => !wasm.locationCovered(index));
  if (next !== undefined) location.hash = "l" + next;
}

function onFindingsAll() {
  const before = new Set(domFindingRows.children);
  showsAllFindings = true;
  renderFindings();
  // The button, which had the focus, is gone.
  [...domFindingRows.children].find((row) => !before.has(row)).querySelector("summary").focus();
}

async function onFindingClick(event) {
  if (!event.target.matches("button")) return;
  const button = event.target;
  const text = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers give no clipboard to pages that come neither from this machine nor by https.
    getSelection().selectAllChildren(text);
    button.textContent = "Selected";
  }
  setTimeout(() => button.textContent = "Copy", 2000);
}

// How long ago something was grows while nothing is drawn: it is told when asked for.
function onFindingHover(event) {
  if (event.target.matches("time")) event.target.title = timeAgo(Date.parse(event.target.dateTime) / 1000);
}

// ------------------------------------------------------------------- render

function renderServer() {
  renderStatus();
  renderTargets();
  renderFindings();
  if (hasCoverage) renderStats();
  else renderTitle();
}

function renderStatus() {
  setText(domConnection, isConnected ? "connected" : wasConnected ? "reconnecting" : "connecting");
  domConnection.dataset.state = isConnected ? "good" : "busy";
  domServerState.hidden = !isConnected || server.state === undefined;
  setBadge(domServerState, String(server.state ?? ""));
  setText(domStatus, statusLine());
  renderNotice();
}

function statusLine() {
  const text = String(server.text ?? "").trim();
  if (wasmFailure !== null) return "The page could not load.";
  if (wasm === null) return "Loading WebAssembly, which the server may have to compile first…";
  if (!isConnected && wasConnected) return "The connection is lost. Trying to reconnect…";
  if (!isConnected) return "Connecting to the server…";
  if (sources === "loading") return "Loading sources…";
  if (sources instanceof Error) return `The sources could not be loaded: ${sources.message}`;
  if (server.state === "failed") return "The server reports a failure.";
  if (isUnknownMap()) return "The server does not know this target.";
  if (!hasIndex) return "Waiting for the fuzzer to report its coverage…";
  if (text !== "" && !text.includes("\n")) return text;
  if (!hasCoverage) return "Waiting for the first coverage update…";
  return "";
}

function renderNotice() {
  const notice = noticeNow();
  domSectNotice.hidden = notice === null;
  if (notice === null) return;
  setText(domNoticeTitle, notice.title);
  setText(domNoticeText, notice.text);
  domNoticeText.hidden = notice.text === "";
  setText(domNoticeLog, notice.log ?? "");
  domNoticeLog.hidden = !notice.log;
  domNoticeRetry.hidden = notice.retry !== true;
  domNoticeLink.hidden = notice.link === undefined;
  if (notice.link === undefined) return;
  setText(domNoticeLink, notice.link.text);
  domNoticeLink.href = notice.link.href;
}

function noticeNow() {
  if (wasmFailure !== null) return { title: "main.wasm could not be loaded", ...wasmFailure, retry: true };
  // The tables may be here already and only wait for someone who can read them.
  const isWaiting = server.state === undefined || queued.has(SOURCE_INDEX);
  if (wasm === null && isWaiting && server.state !== "failed") return null;
  const text = String(server.text ?? "").trim();
  const log = text.includes("\n") ? text : "";
  const reason = SERVER_STATES[server.state] ?? "The fuzzer has not reported its coverage yet.";
  if (server.state === "failed") return { title: reason, text: log ? "" : text, log };
  if (isUnknownMap()) return {
    title: "The server does not know this target",
    text: `The address asks for coverage with the id ${wantedMap}, of which there is none in this session.`,
    link: { text: "Show the first target", href: location.pathname },
  };
  if (!hasIndex) return { title: "No coverage yet", text: log ? reason : text || reason, log };
  if (wasm.locationCount() === 0) return {
    title: "This executable has no instrumentation",
    text: "It contains no coverage points, so the fuzzer works blindly. The self-hosted backend " +
      "of Zig does not instrument: build with -fllvm.",
  };
  if (files.length === 0) return {
    title: "No source to show",
    text: "The executable has no debug info (built with ReleaseSmall, or stripped) that could be read, so its " +
      `${count(wasm.locationCount())} coverage points belong to no file.`,
    log,
  };
  return log ? { title: "From the server", text: "", log } : null;
}

function renderStats() {
  domSectStats.hidden = !hasCoverage;
  const runs = wasmCount(wasm.totalRuns());
  const unique = wasmCount(wasm.uniqueRuns());
  const total = wasm.locationCount();
  const covered = wasm.coveredCount();
  const seconds = wasm.fuzzedSeconds();
  // The coverage file remembers the runs of earlier sessions.
  const newRuns = Math.max(0, runs - Number(server.start_n_runs ?? 0));
  setNumber(domStatTotalRuns, runs);
  setNumber(domStatUniqueRuns, unique, ` (${percent(unique, runs)})`);
  setNumber(domStatSpeed, seconds > 0 ? newRuns / seconds : NaN);
  setNumber(domStatCoverage, covered, ` / ${count(total)} (${percent(covered, total)})`);
  setBar(domCoverageBar, covered, total);
  renderRecentSpeed();
  renderTitle();
}

function renderTitle() {
  const number = serverList("findings").length;
  const total = hasCoverage ? wasm.locationCount() : 0;
  const parts = ["fuzzserver"];
  if (total > 0) parts.unshift(percent(wasm.coveredCount(), total));
  if (number > 0) parts.unshift(`(${count(number)})`);
  document.title = parts.join(" ");
}

function renderTargets() {
  const targets = serverList("targets");
  const shown = shownTarget();
  domSectTargets.hidden = targets.length < 2 &&
    targets.every((target) => target.tests.length === 0 && target.earlier.length === 0 && target.state !== "failed");
  setRows(domTargetList, targets, domTargetTemplate, (row, target) => {
    const link = row.firstElementChild;
    if (target.id === null) link.removeAttribute("href");
    else link.href = mapHref(target.id);
    link.title = target.id === null ? "It has not reported its coverage yet" : "";
    link.setAttribute("aria-current", target === shown);
    setText(link.querySelector(".name"), target.name);
    setBadge(link.querySelector(".badge"), target.state);
  });
  renderBuilds(shown);
  // A target that can be chosen tells its troubles when it is; and nothing is told twice.
  const troubled = targets.filter((target) => target.text.trim() !== "" &&
    (target === shown || (target.id === null && target.state === "failed")) &&
    !String(server.text).includes(target.text.trim()));
  setRows(domTargetTexts, troubled, domTargetTextTemplate, (row, target) => {
    const text = target.text.trim();
    const isLog = text.includes("\n");
    setText(row.firstElementChild, isLog ? `${target.name}, ${target.state}:` : `${target.name}: ${text}`);
    setText(row.lastElementChild, isLog ? text : "");
    row.lastElementChild.hidden = !isLog;
  });
  renderTests(shown?.tests ?? []);
}

function renderBuilds(target) {
  const maps = target === undefined ? [] : [...target.earlier.filter((id) => id !== target.id), target.id];
  domTargetBuild.hidden = maps.length < 2;
  if (domTargetBuild.hidden) return;
  const place = maps.indexOf(server.target);
  const isEarlier = place >= 0 && place < maps.length - 1;
  domTargetBuildNote.hidden = !isEarlier;
  setText(domTargetBuildText, `You see an earlier build of ${target.name}, number ${place + 1} of ${maps.length}.`);
  domTargetBuildLink.hidden = target.id === null;
  if (target.id !== null) domTargetBuildLink.href = mapHref(target.id);
  setRows(domTargetBuilds, maps.slice(0, -1), domBuildTemplate, (link, id, i) => {
    link.href = mapHref(id);
    link.title = id;
    link.setAttribute("aria-current", id === server.target);
    setText(link, String(i + 1));
  });
}

function renderTests(tests) {
  domTestScroll.hidden = tests.length === 0;
  setRows(domTestRows, tests, domTestTemplate, (row, test) => {
    const [head, state, runs, restarts, findings] = row.children;
    setText(head.firstElementChild, test.name);
    setText(head.lastElementChild, test.text.trim());
    setBadge(state.firstElementChild, test.state);
    setText(runs, test.n_runs === null ? "" : counted(test.n_runs, "run"));
    setText(restarts, test.restarts > 0 ? counted(test.restarts, "restart") : "");
    setText(findings, test.findings > 0 ? counted(test.findings, "finding") : "");
  });
}

function renderFindings() {
  const findings = serverList("findings");
  domSectFindings.hidden = findings.length === 0;
  const newest = findings.slice(-NEWEST_FINDINGS);
  // What is open is being read: it stays when newer ones push it down.
  const shown = findings.filter((finding) => showsAllFindings || newest.includes(finding) ||
    findingRows.get(finding.id)?.dom.firstElementChild.open);
  setChildren(domFindingRows, shown.map(renderFinding).reverse());
  setText(domFindingsTitle, counted(findings.length, "finding"));
  setText(domFindingsAll, `Show ${counted(findings.length - shown.length, "earlier finding")}`);
  domFindingsAll.hidden = findings.length === shown.length;
}

function renderFinding(finding) {
  const row = findingRows.get(finding.id) ?? makeFindingRow(finding);
  const wasTried = row.finding.reproduces;
  row.finding = finding;
  const part = (selector) => row.dom.querySelector(selector);
  setText(part(".badge"), finding.kind);
  setText(part(".message"), finding.message);
  setText(part(".test"), finding.test);
  setText(part(".target"), finding.target);
  part(".target").hidden = serverList("targets").length < 2;
  setText(part(".times"), finding.count === 1 ? "once, at" : `${counted(finding.count, "time")}, first`);
  setTime(part(".first time"), finding.first_time);
  setTime(part(".last time"), finding.last_time);
  part(".last").hidden = finding.count === 1;
  setText(part(".runs"), `after ${counted(finding.n_runs, "run")}`);
  setText(part(".reproduces"), finding.reproduces === null ? "reproduction not tried yet" :
    finding.reproduces ? "reproduces" : "does not reproduce");
  if (part("details").open && wasTried !== finding.reproduces) loadFinding(row);
  return row.dom;
}

function makeFindingRow(finding) {
  const row = { finding, detail: null, dom: domFindingTemplate.content.firstElementChild.cloneNode(true) };
  const details = row.dom.firstElementChild;
  details.addEventListener("toggle", () => details.open && loadFinding(row));
  findingRows.set(finding.id, row);
  return row;
}

function renderFindingDetail(row, note) {
  const part = (selector) => row.dom.querySelector(selector);
  setText(part(".findingNote"), note);
  part(".findingNote").hidden = note === "";
  part(".findingDetail").hidden = row.detail === null;
  if (row.detail === null) return;
  const { stack, stderr, input_size, input_note, input_literal, minimized_size, command } = row.detail;
  const minimized = minimized_size === null ? "" : minimized_size === input_size ? ", minimized" :
    `, minimized to ${counted(minimized_size, "byte")}`;
  setText(part(".inputSize"), counted(input_size, "byte") + minimized);
  setText(part(".literal"), input_literal);
  setText(part(".inputNote"), input_note);
  part("a[download]").href = findingUrl(row, "input");
  setText(part(".command"), command);
  setText(part(".stderr"), stderr);
  part(".findingDetail details").hidden = !stderr;
  part(".stack").parentElement.hidden = !stack;
  renderStack(row);
}

// The places in a stack trace that the listed files have become links.
function renderStack(row) {
  if (row.detail === null) return;
  row.dom.querySelector(".stack").replaceChildren(...row.detail.stack.split(/^/m).flatMap((text) => {
    const [place, path, line] = /^(.+?):(\d+):\d+(?=: )/.exec(text) ?? [];
    const file = files.find((file) => file.path === path);
    if (file === undefined) return text;
    const points = wasmIndexes(wasm.fileLocations(file.index));
    const point = points.find((index) => wasm.locationLine(index) >>> 0 === +line);
    const link = document.createElement("a");
    link.href = point !== undefined ? "#l" + point : "#f" + file.index;
    link.textContent = place;
    return [link, text.slice(place.length)];
  }));
}

function renderRecentSpeed() {
  const now = performance.now();
  samples = samples.filter((sample) => now - sample.time < RECENT_MS);
  const elapsed = samples.length > 1 ? samples.at(-1).time - samples[0].time : 0;
  const isKnown = elapsed >= 400;
  setNumber(domStatRecentSpeed, isKnown ? (samples.at(-1).runs - samples[0].runs) / elapsed * 1000 : NaN);
  if (!isKnown) domStatRecentSpeed.title = "No two reports of the fuzzer in the last 10 seconds";
}

function renderEntryPoints() {
  const points = wasmIndexes(wasm.entryPoints());
  domEntryPoints.hidden = points.length === 0;
  domEntryPointsList.replaceChildren(...points.map((index) => {
    const item = document.createElement("li");
    const file = wasm.locationFile(index);
    if (file === wasm.fileCount()) {
      item.textContent = `location ${index}, without a source file`;
      return item;
    }
    const path = wasmText(wasm.filePath(file));
    const place = ":" + lineAndColumn(index);
    const link = document.createElement("a");
    link.href = "#l" + index;
    link.title = path + place;
    link.textContent = withoutPrefix(path) + place;
    item.append(link);
    return item;
  }));
}

function renderFiles() {
  domSectFiles.hidden = files.length === 0;
  for (const head of domFileHeads.children) {
    const isSorted = head.firstElementChild.dataset.key === sortKey;
    head.setAttribute("aria-sort", !isSorted ? "none" : sortDescending ? "descending" : "ascending");
  }
  const wanted = domFileFilter.value.trim().toLowerCase();
  const found = files.filter((file) => file.path.toLowerCase().includes(wanted));
  const value = SORT_VALUES[sortKey];
  found.sort((a, b) => {
    const order = value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
    return (sortDescending ? -order : order) || (a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
  });
  const shown = found.slice(0, MAX_FILE_ROWS).map((file) => file.row ?? makeFileRow(file));
  setChildren(domFileRows, shown);

  const notes = [];
  if (found.length === 0 && files.length > 0) notes.push("No path matches the filter.");
  if (found.length > shown.length) notes.push(`The first ${count(shown.length)} of ${count(found.length)} files; filter to see others.`);
  const stray = wasm.fileTotal(wasm.fileCount());
  if (stray > 0) notes.push(`${count(stray)} coverage points belong to no file.`);
  setText(domFilesNote, notes.join(" "));
  domFilesNote.hidden = notes.length === 0;
}

function makeFileRow(file) {
  const shown = withoutPrefix(file.path);
  const nameStart = shown.lastIndexOf("/") + 1;
  file.row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const link = document.createElement("a");
  link.href = "#f" + file.index;
  link.title = file.path;
  link.append(makeSpan("name", shown.slice(nameStart)), makeSpan("directory", shown.slice(0, nameStart)));
  head.append(link);
  file.row.append(head, document.createElement("td"), document.createElement("td"), document.createElement("td"));
  file.row.lastElementChild.append(makeSpan("", ""), makeSpan("bar", ""));
  renderFileRow(file);
  return file.row;
}

function renderFileRow(file) {
  const [head, uncovered, points, part] = file.row.children;
  head.firstElementChild.setAttribute("aria-current", open !== null && open.file === file.index);
  setText(uncovered, count(file.total - file.covered));
  setText(points, `${count(file.covered)} / ${count(file.total)}`);
  setText(part.firstElementChild, percent(file.covered, file.total));
  setBar(part.lastElementChild, file.covered, file.total);
}

function renderSource() {
  marks = [];
  // Hidden marks would still answer to their ids.
  domSourceText.replaceChildren();
  domPointRows.replaceChildren();
  domSourceNote.hidden = domSourceCode.hidden = domSourcePoints.hidden = true;
  domSectSource.hidden = open === null || !hasIndex;
  for (const file of files) if (file.row !== null) renderFileRow(file);
  if (!domSectSource.hidden) renderOpenFile();
  if (hasIndex && sources !== "loading") reveal();
}

function renderOpenFile() {
  setText(domSourceTitle, open.path === "" ? "No such place" : withoutPrefix(open.path));
  domSourceTitle.title = open.path;
  if (open.path === "") {
    showSourceNote(open.location === undefined
      ? "The executable has no file of this number."
      : `Location ${open.location} has no source file.`);
  } else if (wasm.hasSource(open.file)) {
    setSourceHtml(wasmText(wasm.fileHtml(open.file)));
  } else if (sources === "loading") {
    showSourceNote("Loading sources…");
  } else {
    showSourceNote(`source not available: ${open.path}`);
    renderPoints();
  }
  renderMarks();
}

// The one place that turns text into markup: main.zig has escaped the source.
function setSourceHtml(html) {
  domSourceText.innerHTML = html;
  const text = domSourceText.textContent;
  const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
  setText(domSourceLines, Array.from({ length: lines }, (_, i) => i + 1).join("\n"));
  marks = [...domSourceText.querySelectorAll("span[id]")];
  domSourceCode.hidden = false;
}

function renderPoints() {
  const rows = wasmIndexes(wasm.fileLocations(open.file)).map((index) => {
    const row = document.createElement("tr");
    const place = document.createElement("td");
    const link = document.createElement("a");
    link.href = "#l" + index;
    link.textContent = lineAndColumn(index);
    place.append(link);
    const state = document.createElement("td");
    const mark = makeSpan("", "");
    mark.id = "l" + index;
    marks.push(mark);
    state.append(mark, makeSpan("state", ""));
    row.append(place, state);
    return row;
  });
  domPointRows.replaceChildren(...rows);
  domSourcePoints.hidden = false;
}

function renderMarks() {
  let covered = 0;
  for (const mark of marks) {
    const index = +mark.id.slice(1);
    const isCovered = Boolean(wasm.locationCovered(index));
    if (isCovered) covered += 1;
    const className = "mark" + (isCovered ? " covered" : "") + (index === open.location ? " current" : "");
    if (mark.className === className) continue;
    mark.className = className;
    mark.setAttribute("role", "img");
    mark.title = isCovered ? "covered" : "not covered";
    if (mark.nextElementSibling?.className === "state") mark.nextElementSibling.textContent = mark.title;
  }
  setText(domSourceCoverage, `${count(covered)} / ${count(marks.length)} points covered (${percent(covered, marks.length)})`);
  domSourceCoverage.hidden = domLegend.hidden = marks.length === 0;
  domNextUncovered.hidden = covered === marks.length;
}

function showSourceNote(text) {
  setText(domSourceNote, text);
  domSourceNote.hidden = false;
}

// Brings the page to where the reader was, or to what the link points at.
function reveal() {
  const wish = pendingReveal;
  if (wish === null) return;
  // Browsers scroll to a link's target themselves, after the event: be later.
  requestAnimationFrame(() => {
    const mark = marks.find((mark) => mark.classList.contains("current"));
    if (wish.scroll !== undefined) scrollTo(scrollX, wish.scroll);
    else if (mark !== undefined) mark.scrollIntoView({ block: "center", inline: "nearest" });
    else if (open !== null) domSectSource.scrollIntoView({ block: "start" });
    pendingReveal = null;
  });
}

// ------------------------------------------------------------------ loading

async function loadWasm() {
  wasmFailure = null;
  renderStatus();
  try {
    const response = await fetch("main.wasm");
    if (response.ok) {
      const imports = { js: { clock: () => performance.now(), log: (ptr, len) => console.log(decode(ptr >>> 0, len)) } };
      wasm = (await WebAssembly.instantiateStreaming(response, imports)).instance.exports;
    } else {
      wasmFailure = { text: `The server answered ${response.status}:`, log: await response.text() };
    }
  } catch (error) {
    wasmFailure = { text: String(error) };
  }
  renderStatus();
  if (wasm === null) return;
  adoptStyle();
  for (const bytes of queued.values()) onServerBytes(bytes);
  queued.clear();
}

// Zig's own server has no style.css to give; main.wasm carries a copy.
function adoptStyle() {
  if (domStyleLink.sheet !== null && domStyleLink.sheet.cssRules.length > 0) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(wasmText(wasm.styleSheet()));
  document.adoptedStyleSheets = [sheet];
}

async function loadSources() {
  const turn = sourcesTurn += 1;
  sources = "loading";
  renderStatus();
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
  if (turn !== sourcesTurn) return;
  if (bytes !== null) {
    moveToWasm(bytes);
    wasm.unpack();
  }
  sources = outcome;
  renderStatus();
  renderSource();
}

async function loadFinding(row) {
  let note = "";
  try {
    const response = await fetch(findingUrl(row, "json"));
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    row.detail = await response.json();
  } catch (error) {
    note = `The finding could not be loaded: ${error.message}`;
  }
  renderFindingDetail(row, note);
}

function connect(withSubprotocol, isSecondTry) {
  const url = new URL(wantedMap === null ? location.pathname : mapHref(wantedMap), location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, withSubprotocol ? [SUBPROTOCOL] : []);
  let wasOpened = false;
  socket.binaryType = "arraybuffer";
  socket.onmessage = onSocketMessage;
  socket.onopen = () => {
    wasOpened = true;
    onSocketOpen(withSubprotocol);
  };
  // An error is always followed by a close.
  socket.onclose = () => {
    isConnected = false;
    renderStatus();
    if (!wasOpened && !isSecondTry) return connect(!withSubprotocol, true);
    setTimeout(() => connect(usesSubprotocol, false), reconnectMs);
    reconnectMs = Math.min(reconnectMs * 1.5, 5000);
  };
}

// Shows what the address names: `#l<location>`, `#f<file>` or nothing.
function navigate() {
  const [, kind, digits] = /^#([lf])(\d{1,9})$/.exec(location.hash) ?? [];
  const before = open;
  open = null;
  if (kind !== undefined && hasIndex) {
    const index = +digits;
    const file = kind === "l" ? wasm.locationFile(index) : index;
    open = { file, path: wasmText(wasm.filePath(file)) };
    if (kind === "l") Object.assign(open, { location: index, place: lineAndColumn(index) });
  }
  if (before === null || open === null || before.file !== open.file || open.path === "") return renderSource();
  renderMarks();
  reveal();
}

// Another executable numbers its files and locations anew: keep the place open
// that was, and change the address to name it.
function followOpenFile() {
  if (open !== null && open.path !== "") {
    const file = files.find((file) => file.path === open.path);
    const points = file === undefined ? [] : wasmIndexes(wasm.fileLocations(file.index));
    const point = points.find((index) => lineAndColumn(index) === open.place);
    const hash = point !== undefined ? "l" + point : file !== undefined ? "f" + file.index : "";
    history.replaceState(history.state, "", "#" + hash);
  }
  open = null;
  navigate();
}

// ------------------------------------------------------------------ helpers

function byId(id) {
  return document.getElementById(id);
}

// What the server says in a list; servers that know one target only say nothing.
function serverList(name) {
  return Array.isArray(server[name]) ? server[name] : [];
}

// Before any coverage is known, the first target is the one that will be shown.
function shownTarget() {
  const targets = serverList("targets");
  if (server.target === null) return wantedMap === null ? targets[0] : undefined;
  return targets.find((target) => target.id === server.target) ??
    targets.find((target) => target.earlier.includes(server.target));
}

function isUnknownMap() {
  return wantedMap !== null && server.target === null;
}

function mapHref(id) {
  return "?target=" + encodeURIComponent(id);
}

function findingUrl(row, suffix) {
  return `findings/${encodeURIComponent(row.finding.id)}.${suffix}`;
}

// All bytes for wasm pass here. Its memory may grow, which invalidates every
// view of it: views are made after the call that may do so, and never kept.
function moveToWasm(bytes) {
  const ptr = wasm.inbox(bytes.length) >>> 0;
  new Uint8Array(wasm.memory.buffer, ptr, bytes.length).set(bytes);
}

// A slice comes as one integer: pointer low, length high.
function wasmText(slice) {
  return decode(Number(BigInt.asUintN(32, slice)), Number(slice >> 32n));
}

// Integers of 32 bits arrive signed.
function lineAndColumn(index) {
  return `${wasm.locationLine(index) >>> 0}:${wasm.locationColumn(index) >>> 0}`;
}

function wasmIndexes(slice) {
  const ptr = Number(BigInt.asUintN(32, slice));
  return [...new Uint32Array(wasm.memory.buffer, ptr, Number(slice >> 32n))];
}

// A u64 arrives as a signed BigInt.
function wasmCount(value) {
  return Number(BigInt.asUintN(64, value));
}

function decode(ptr, len) {
  return new TextDecoder().decode(new Uint8Array(wasm.memory.buffer, ptr, len));
}

function commonPrefixLength(paths) {
  const directories = paths.map((path) => path.slice(0, path.lastIndexOf("/") + 1));
  let shared = directories[0] ?? "";
  for (const directory of directories) {
    while (!directory.startsWith(shared)) shared = shared.slice(0, shared.lastIndexOf("/", shared.length - 2) + 1);
  }
  // A lone slash tells absolute paths from others.
  return shared === "/" ? 0 : shared.length;
}

function withoutPrefix(path) {
  return path.slice(prefixLength);
}

// Only a change is written: screen readers repeat what is written to #status,
// and a selection in a text that is replaced is lost.
function setText(dom, text) {
  if (dom.textContent !== text) dom.textContent = text;
}

function setBadge(dom, state) {
  setText(dom, state);
  dom.dataset.state = BAD_STATES.includes(state) ? "bad" : GOOD_STATES.includes(state) ? "good" : "busy";
}

// Today needs no date. How long ago it was is told on hover.
function setTime(dom, seconds) {
  const time = new Date(seconds * 1000);
  const isToday = time.toDateString() === new Date().toDateString();
  dom.dateTime = time.toISOString();
  setText(dom, (isToday ? CLOCK_TIMES : DATE_TIMES).format(time));
}

// Children that are in their place already are not touched, which would cost focus and selection.
function setChildren(dom, children) {
  const kept = new Set(children);
  for (const child of [...dom.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, i) => {
    if (dom.children[i] !== child) dom.insertBefore(child, dom.children[i] ?? null);
  });
}

// As many copies of the template as there are values, each filled in by `render`.
function setRows(dom, values, domTemplate, render) {
  const rows = values.map((_, i) => dom.children[i] ?? domTemplate.content.firstElementChild.cloneNode(true));
  setChildren(dom, rows);
  values.forEach((value, i) => render(rows[i], value, i));
}

function setNumber(dom, value, suffix = "") {
  setText(dom, (Number.isNaN(value) ? "–" : readable(value)) + suffix);
  dom.title = Number.isNaN(value) ? "" : count(value);
}

function setBar(dom, part, whole) {
  dom.style.setProperty("--part", whole === 0 ? "0" : String(part / whole));
}

function makeSpan(className, text) {
  const span = document.createElement("span");
  span.className = className;
  span.textContent = text;
  return span;
}

function count(value) {
  return (value < 10 ? SMALL_NUMBERS : NUMBERS).format(value);
}

function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

function timeAgo(seconds) {
  const age = Math.max(0, Date.now() / 1000 - seconds);
  const [unit, size] = TIME_UNITS.find(([, size]) => age >= size) ?? TIME_UNITS.at(-1);
  return RELATIVE_TIMES.format(-Math.floor(age / size), unit);
}

function readable(value) {
  return value < 10_000_000 ? count(value) : LARGE_NUMBERS.format(value);
}

// Neither says nothing where there is a little, nor all where something misses.
function percent(part, whole) {
  if (whole === 0) return "–";
  const value = part / whole * 100;
  if (value > 0 && value < 0.1) return value.toPrecision(1) + " %";
  return (part < whole ? Math.min(value, 99.9) : value).toFixed(1) + " %";
}

// -------------------------------------------------------------------- start

history.scrollRestoration = "manual";
addEventListener("popstate", onPopState);
addEventListener("scroll", onScroll, { passive: true });
domFileFilter.addEventListener("input", renderFiles);
domFileHeads.addEventListener("click", onHeadClick);
domSourceText.addEventListener("click", onSourceClick);
domNextUncovered.addEventListener("click", onNextUncovered);
domNoticeRetry.addEventListener("click", loadWasm);
domFindingsAll.addEventListener("click", onFindingsAll);
domFindingRows.addEventListener("click", onFindingClick);
domFindingRows.addEventListener("pointerover", onFindingHover);
// Without reports there is no speed, and no event that tells so.
setInterval(() => hasCoverage && renderRecentSpeed(), 1000);
loadWasm();
connect(usesSubprotocol, false);
