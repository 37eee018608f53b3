/* Build and change the document. Text goes in as text nodes only: no markup is ever made from data. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Make an element: `el("a", {href, class, on: {click}}, "text", child)`. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an SVG element. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Set an element's text if it differs: an unchanged text node keeps selections and does not flicker. */
export function setText(node, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute if it differs. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

/** Replace all children. */
export function setChildren(node, ...children) {
  node.replaceChildren();
  append(node, children);
}

/** Show children made from `value` only when its JSON changed since the last call; says whether it did. */
export function whenChanged(node, value, make) {
  const mark = JSON.stringify(value) ?? "undefined";
  if (node.paddockMark === mark) return false;
  node.paddockMark = mark;
  setChildren(node, make());
  return true;
}

/**
 * Bring a parent's children in line with a list, by key: nodes are made once, moved only where the order changed, and updated in place,
 * so that focus, selection and scroll position survive. The focus of one that is gone goes to its neighbour.
 *
 * `make(item)` returns a node; `update(node, item)` changes it.
 */
export function keyed(parent, items, keyOf, make, update) {
  const known = parent.paddockKeyed ?? (parent.paddockKeyed = new Map());
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const key = String(keyOf(item));
    wanted.add(key);
    let node = known.get(key);
    if (node === undefined) known.set(key, (node = make(item)));
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of known) {
    if (wanted.has(key)) continue;
    const next = node.contains(document.activeElement) ? (node.nextSibling ?? node.previousSibling ?? parent) : null;
    node.remove();
    if (next) (next.querySelector("a[href], button") ?? document.getElementById("main"))?.focus({ preventScroll: true });
    known.delete(key);
  }
}

let counter = 0;

/** Return an id that nothing else in the document has. */
export function uniqueId(prefix) {
  counter += 1;
  return `${prefix}-${counter}`;
}
