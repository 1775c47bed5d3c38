// Watches with the package "ws". Each message is a line of JSON; the line "close" ends it.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const say = (what) => console.log(JSON.stringify(what));
const socket = new WebSocket(process.argv[2], ["fuzzserver"]);
socket.on("message", (data, binary) => say(binary ? { binary: data.toString("base64") } : { text: data.toString() }));
socket.on("error", (error) => say({ error: String(error) }));
socket.on("close", (code) => {
  say({ close: code });
  process.exit();
});
createInterface({ input: process.stdin }).on("line", () => socket.close(1000, "bye"));
