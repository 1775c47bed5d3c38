// Paths of files, and the tree of directories that they make. A leaf is what files.js
// makes of a file; a directory is like it, with `children`.

export function baseName(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function directoryOf(path) {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

// The directory that all paths have in common, with its last slash.
export function sharedPrefix(paths) {
  const upTo = (path) => path.slice(0, path.lastIndexOf("/") + 1);
  let shared = upTo(paths[0] ?? "");
  for (const path of paths) while (!path.startsWith(shared)) shared = upTo(shared.slice(0, -1));
  // A lone slash tells absolute paths from others.
  return shared === "/" ? "" : shared;
}

// Directories around the leaves. One that holds nothing but another directory is one with it.
export function treeOf(leaves, pathOf) {
  const root = makeDirectory("", "");
  for (const leaf of leaves) {
    let directory = root;
    const path = directoryOf(pathOf(leaf));
    const names = path === "" ? [] : path.split("/");
    if (names[0] === "") names.splice(0, 2, `/${names[1] ?? ""}`);
    for (const name of names) {
      if (!directory.byName.has(name)) {
        const inner = makeDirectory(directory.path === "" ? name : `${directory.path}/${name}`, name);
        directory.byName.set(name, inner);
        directory.children.push(inner);
      }
      directory = directory.byName.get(name);
    }
    directory.children.push(leaf);
  }
  return root.children.map(joined);
}

function makeDirectory(path, name) {
  return {
    id: `d${path}`, path, name, small: "", title: path, byName: new Map(), children: [],
    isOpen: false, isStd: false, level: 1, total: 0, covered: 0,
  };
}

function joined(node) {
  if (node.children === undefined) return node;
  let inner = node;
  let name = node.name;
  while (inner.children.length === 1 && inner.children[0].children !== undefined) {
    [inner] = inner.children;
    name += `/${inner.name}`;
  }
  inner.name = name;
  inner.children = inner.children.map(joined);
  inner.isStd = inner.children.every((child) => child.isStd);
  inner.total = inner.children.reduce((sum, child) => sum + child.total, 0);
  return inner;
}

export function recountNode(node, coveredOf) {
  if (node.children === undefined) {
    node.covered = coveredOf(node);
    return node.covered;
  }
  node.covered = 0;
  for (const child of node.children) node.covered += recountNode(child, coveredOf);
  return node.covered;
}

// Directories come before files where names are compared.
export function sortNodes(nodes, value, descending, isByName) {
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  nodes.sort((a, b) => {
    if (isByName && (a.children === undefined) !== (b.children === undefined)) return a.children === undefined ? 1 : -1;
    const order = compare(value(a), value(b));
    return (descending ? -order : order) || compare(a.name, b.name);
  });
  for (const node of nodes) if (node.children !== undefined) sortNodes(node.children, value, descending, isByName);
}

export function countLeaves(nodes) {
  return nodes.reduce((sum, node) => sum + (node.children === undefined ? 1 : countLeaves(node.children)), 0);
}
