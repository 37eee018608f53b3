/*
 * Where the nodes and edges of a graph lie. Pure: sizes in, coordinates out.
 *
 * Layers from the top down, by the longest way from the start; edges that go back (loops) are set aside first and drawn along the right.
 * An edge over several layers gets a point in each, so that it does not run through nodes. Order within a layer by barycentres, then a
 * few rounds pull each node under its neighbours. A `parallel` is a box whose branches are laid out by the same function, side by side.
 */

const GAP_X = 22;
const GAP_Y = 36;
const PAD = 12;
const TITLE = 26;
const LANE = 14;
const END = { width: 44, height: 20 };

/** Lay a graph out; `sizes` has `node(node)` and `label(edge)`: `{width, height, nodes: [{node, path, x, y, width, height, branches}], edges: [{from, edge, points, back}]}`. */
export function layout(graph, sizes, scope = "") {
  const boxes = new Map();
  for (const node of graph.nodes) boxes.set(node.name, box(node, sizes, scope));
  const ends = scope === "" && graph.nodes.some((node) => node.edges.some((edge) => edge.to === null));
  if (ends) boxes.set(null, { node: null, path: `${scope}(end)`, ...END, branches: [] });
  const edges = graph.nodes.flatMap((node) =>
    node.edges.filter((edge) => boxes.has(edge.to)).map((edge) => ({ from: node.name, to: edge.to, edge })),
  );
  const { forward, back } = separate(edges, graph.start, boxes);
  const layers = assignLayers([...boxes.keys()], forward);
  const rows = withPoints(layers, forward, boxes, sizes);
  orderRows(rows, forward);
  placeRows(rows);
  return measure(boxes, forward, back, rows);
}

function box(node, sizes, scope) {
  const path = scope + node.name;
  const size = sizes.node(node);
  if (!node.branches.length) return { node, path, ...size, branches: [] };
  let x = PAD;
  let height = 0;
  const branches = node.branches.map((branch) => {
    const inner = layout(branch, sizes, `${path}/${branch.name}/`);
    const placed = { name: branch.name, x, y: TITLE + 34, ...inner };
    x += Math.max(inner.width, branch.name.length * 7.5 + 12) + PAD;
    height = Math.max(height, inner.height);
    return placed;
  });
  return { node, path, width: Math.max(size.width, x), height: TITLE + 34 + height + PAD, branches };
}

/* Edges that close a circle, seen in a walk from the start, go back. */
function separate(edges, start, boxes) {
  const out = new Map([...boxes.keys()].map((name) => [name, []]));
  for (const edge of edges) out.get(edge.from).push(edge);
  const state = new Map();
  const back = new Set(edges.filter((edge) => edge.edge.kind === "loop" || edge.from === edge.to));
  const visit = (name) => {
    state.set(name, "open");
    for (const edge of out.get(name)) {
      if (back.has(edge)) continue;
      if (state.get(edge.to) === "open") back.add(edge);
      else if (!state.has(edge.to)) visit(edge.to);
    }
    state.set(name, "done");
  };
  for (const name of [start, ...boxes.keys()]) if (boxes.has(name) && !state.has(name)) visit(name);
  return { forward: edges.filter((edge) => !back.has(edge)), back: [...back] };
}

function assignLayers(names, forward) {
  const incoming = new Map(names.map((name) => [name, 0]));
  for (const edge of forward) incoming.set(edge.to, incoming.get(edge.to) + 1);
  const layer = new Map(names.map((name) => [name, 0]));
  const ready = names.filter((name) => incoming.get(name) === 0);
  while (ready.length) {
    const name = ready.shift();
    for (const edge of forward.filter((one) => one.from === name)) {
      layer.set(edge.to, Math.max(layer.get(edge.to), layer.get(name) + 1));
      incoming.set(edge.to, incoming.get(edge.to) - 1);
      if (incoming.get(edge.to) === 0) ready.push(edge.to);
    }
  }
  return layer;
}

/* Rows of items; an item is a node's box or a point of an edge that passes. Each knows its neighbours above and below. */
function withPoints(layers, forward, boxes, sizes) {
  const rows = Array.from({ length: Math.max(0, ...layers.values()) + 1 }, () => []);
  const items = new Map();
  for (const [name, index] of layers) {
    const item = { box: boxes.get(name), width: boxes.get(name).width, up: [], down: [], x: 0 };
    items.set(name, item);
    rows[index].push(item);
  }
  for (const edge of forward) {
    edge.chain = [items.get(edge.from)];
    for (let index = layers.get(edge.from) + 1; index < layers.get(edge.to); index += 1) {
      const label = edge.chain.length === 1 ? sizes.label(edge.edge) : 0; // which stands at the first point
      const point = { box: null, width: Math.max(8, label), up: [], down: [], x: 0 };
      rows[index].push(point);
      edge.chain.push(point);
    }
    edge.chain.push(items.get(edge.to));
    for (let index = 1; index < edge.chain.length; index += 1) {
      edge.chain[index].up.push(edge.chain[index - 1]);
      edge.chain[index - 1].down.push(edge.chain[index]);
    }
  }
  return rows;
}

function orderRows(rows) {
  const number = () => rows.forEach((row) => row.forEach((item, index) => (item.index = index)));
  number();
  for (let round = 0; round < 4; round += 1) {
    const down = round % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) {
      for (const item of row) {
        const near = down ? item.up : item.down;
        item.weight = near.length ? near.reduce((sum, one) => sum + one.index, 0) / near.length : item.index;
      }
      row.sort((a, b) => a.weight - b.weight || a.index - b.index);
      row.forEach((item, index) => (item.index = index));
    }
  }
}

function placeRows(rows) {
  for (const row of rows) {
    let x = 0;
    for (const item of row) {
      item.x = x + item.width / 2;
      x += item.width + GAP_X;
    }
    const middle = (x - GAP_X) / 2;
    for (const item of row) item.x -= middle;
  }
  for (let round = 0; round < 8; round += 1) {
    const down = round % 2 === 0;
    for (const row of down ? rows : [...rows].reverse()) pull(row, down);
  }
}

/* Move each item of a row towards its neighbours' mean, and apart from each other. */
function pull(row, down) {
  const wanted = row.map((item) => {
    const near = down ? item.up : item.down;
    return near.length ? near.reduce((sum, one) => sum + one.x, 0) / near.length : item.x;
  });
  const apart = (index) => (row[index].width + row[index + 1].width) / 2 + GAP_X;
  const left = [...wanted];
  const right = [...wanted];
  for (let index = 1; index < row.length; index += 1)
    left[index] = Math.max(left[index], left[index - 1] + apart(index - 1));
  for (let index = row.length - 2; index >= 0; index -= 1)
    right[index] = Math.min(right[index], right[index + 1] - apart(index));
  row.forEach((item, index) => (item.x = (left[index] + right[index]) / 2));
}

function measure(boxes, forward, back, rows) {
  let y = 0;
  for (const row of rows) {
    const height = Math.max(...row.map((item) => item.box?.height ?? 0));
    for (const item of row) Object.assign(item, { y, height: item.box?.height ?? height });
    y += height + GAP_Y;
  }
  const all = rows.flat();
  const least = Math.min(...all.map((item) => item.x - item.width / 2));
  const most = Math.max(...all.map((item) => item.x + item.width / 2)) - least;
  for (const item of all) {
    item.x -= least;
    if (item.box) Object.assign(item.box, { x: item.x - item.width / 2, y: item.y });
  }
  const lanes = back.map((edge, index) => ({
    from: edge.from,
    edge: edge.edge,
    back: true,
    points: lane(boxes.get(edge.from), boxes.get(edge.to), most + LANE * (index + 1)),
  }));
  const ways = forward.map((edge) => ({ from: edge.from, edge: edge.edge, back: false, points: chain(edge.chain) }));
  return {
    width: most + (back.length ? LANE * back.length + 6 : 0),
    height: y - GAP_Y,
    nodes: [...boxes.values()],
    edges: [...ways, ...lanes],
  };
}

function chain(items) {
  const first = items[0];
  const points = [[first.x, first.y + first.height]];
  for (const item of items.slice(1, -1)) points.push([item.x, item.y], [item.x, item.y + item.height]);
  const last = items.at(-1);
  points.push([last.x, last.y]);
  return points;
}

function lane(from, to, x) {
  const leave = [from.x + from.width, from.y + from.height / 2 + 5];
  const arrive = [to.x + to.width, to.y + Math.min(to.height / 2, 18) - 3];
  return [leave, [x, leave[1]], [x, arrive[1]], arrive];
}
