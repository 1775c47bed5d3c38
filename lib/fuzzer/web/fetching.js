// Asking the server for what it does not tell by itself.

import { reportTime, reportedAnswer } from "./report.js";

/** As `fetch` does; in a report, from what is in it. */
export function request(url, options) {
  return reportTime === null ? fetch(url, options) : reportedAnswer(url);
}

/** The answer to a request for `url`; an Error says what went wrong. */
async function fetched(url) {
  const response = await request(url);
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response;
}

export async function fetchedBytes(url) {
  return new Uint8Array(await (await fetched(url)).arrayBuffer());
}

export async function fetchedJson(url) {
  return (await fetched(url)).json();
}
