// Watches with the package "undici", whose WebSocket is that of browsers. Messages as in ws.mjs.
import { createInterface } from "node:readline";
import { WebSocket } from "undici";

const say = (what) => console.log(JSON.stringify(what));
const socket = new WebSocket(process.argv[2], ["fuzzserver"]);
socket.binaryType = "arraybuffer";
socket.onmessage = ({ data }) =>
  say(typeof data === "string" ? { text: data } : { binary: Buffer.from(data).toString("base64") });
socket.onerror = (event) => say({ error: String(event.error ?? event.message) });
socket.onclose = ({ code }) => {
  say({ close: code });
  process.exit();
};
createInterface({ input: process.stdin }).on("line", () => socket.close(1000, "bye"));
