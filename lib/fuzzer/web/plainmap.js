// What the server's messages say of a coverage map, read without main.wasm: as much of it as a list of files and
// a plain source need.

// As in abi.zig.
const SOURCE_INDEX = 1, COVERAGE_UPDATE = 2, COVERAGE_DELTA = 16;
const INDEX_HEAD = 28, UPDATE_HEAD = 24, DELTA_HEAD = 32;
const UTF8 = new TextDecoder();

// By the numbers of files: {path, points}, where each point is {number, line}.
let files = [];
let covered = new Uint8Array();

export function forget() {
  files = [];
  covered = new Uint8Array();
}

// Whether the message has changed anything. Throws a RangeError if it is not as long as it says.
export function receive(bytes) {
  if (bytes[0] === SOURCE_INDEX) readIndex(bytes);
  else if (bytes[0] === COVERAGE_UPDATE) readUpdate(bytes);
  else if (bytes[0] === COVERAGE_DELTA) readDelta(bytes);
  else return false;
  return true;
}

export function plainFiles() {
  return files;
}

export function coveredOf(points) {
  return points.filter(({ number }) => covered[number] === 1).length;
}

// The points of each line, from 1.
export function pointsByLine({ points }) {
  const byLine = new Map();
  for (const point of points) byLine.set(point.line, [...byLine.get(point.line) ?? [], point]);
  return byLine;
}

function readIndex(bytes) {
  const [, nDirectories, nFiles, nLocations, nStrings] = numbers(bytes, 0, 5);
  let at = INDEX_HEAD;
  const next = (count) => {
    const taken = numbers(bytes, at, count);
    at += taken.byteLength;
    return taken;
  };
  const directories = next(nDirectories);
  const names = next(2 * nFiles);
  const locations = next(3 * nLocations);
  const strings = bytes.subarray(at, at + nStrings);
  const textAt = (offset) => UTF8.decode(strings.subarray(offset, Math.max(offset, strings.indexOf(0, offset))));
  files = Array.from({ length: nFiles }, (_, file) => {
    const directory = textAt(directories[names[2 * file]] ?? nStrings);
    return { path: `${directory.replace(/\/$/, "")}/${textAt(names[2 * file + 1])}`, points: [] };
  });
  for (let number = 0; number < nLocations; number += 1) {
    files[locations[3 * number]]?.points.push({ number, line: locations[3 * number + 1] });
  }
  covered = new Uint8Array(nLocations);
}

// One bit for each point, the least significant first.
function readUpdate(bytes) {
  for (let point = 0; point < covered.length; point += 1) {
    covered[point] = bytes[UPDATE_HEAD + (point >> 3)] >> (point & 7) & 1;
  }
}

function readDelta(bytes) {
  const [, count] = numbers(bytes, 0, 2);
  for (const point of numbers(bytes, DELTA_HEAD, count)) covered[point] = 1;
}

function numbers(bytes, at, count) {
  return new Uint32Array(bytes.buffer, bytes.byteOffset + at, count);
}
