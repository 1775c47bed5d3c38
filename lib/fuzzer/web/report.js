// A report: this page as one file with its data inside, which needs no server. What a server would answer and tell
// is packed in an element of the document, as web/static_page.py has put it there.

const UTF8 = new TextDecoder();
const HEAD_BYTES = 4;

const dom = document.getElementById("report");
let opening = null;

// When it was made, in Unix seconds; null for the page of a server.
export const reportTime = dom === null ? null : Number(dom.dataset.time);

// What time it is. In a report, time stands still.
export function unixNow() {
  return reportTime ?? Date.now() / 1000;
}

// What the server answered to a request for `url`.
export async function reportedAnswer(url) {
  const { answers, content } = await open();
  const answer = answers.get(url);
  if (answer === undefined) throw new Error("it is not in this report");
  return new Response(content(answer), { status: answer.status, headers: answer.headers });
}

// What the server told those who wanted this coverage map, or the first one for null: strings and ArrayBuffers.
export async function reportedMessages(target) {
  const { first, greeting, maps, content } = await open();
  const messages = [...greeting, ...(maps.get(target ?? first) ?? [])];
  return messages.map((message) => message.text ?? content(message).buffer);
}

function open() {
  opening ??= unpack();
  return opening;
}

// Its size, a table of what is in it as JSON, and then all contents in one.
async function unpack() {
  const packed = Uint8Array.from(atob(dom.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = await new Response(stream).arrayBuffer();
  const start = HEAD_BYTES + new DataView(bytes).getUint32(0, true);
  const table = JSON.parse(UTF8.decode(new Uint8Array(bytes, HEAD_BYTES, start - HEAD_BYTES)));
  return {
    first: table.first,
    greeting: table.greeting,
    maps: new Map(Object.entries(table.maps)),
    answers: new Map(Object.entries(table.answers)),
    content: ({ at, size }) => new Uint8Array(bytes.slice(start + at, start + at + size)),
  };
}
