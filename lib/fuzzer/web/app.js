// Starts all parts of the page, those first that others hear about things from.

import * as chart from "./chart.js";
import * as connection from "./connection.js";
import * as corpus from "./corpus.js";
import * as files from "./files.js";
import * as findings from "./findings.js";
import * as head from "./head.js";
import * as keys from "./keys.js";
import * as logview from "./logview.js";
import * as news from "./news.js";
import * as next from "./next.js";
import * as notice from "./notice.js";
import * as numbers from "./numbers.js";
import * as plain from "./plain.js";
import * as route from "./route.js";
import * as source from "./source.js";
import * as targets from "./targets.js";
import * as views from "./views.js";
import { loadWasm } from "./wasm.js";

// The connection comes before the route: an address of another target has
// nothing to do with the index that is there.
const PARTS = [
  connection, route, keys, head, targets, views, notice, numbers,
  files, source, news, next, chart, findings, corpus, logview, plain,
];

// `module` is main.wasm compiled, if the loader has needed it already.
export function start(module) {
  for (const part of PARTS) part.start();
  loadWasm(module);
}
