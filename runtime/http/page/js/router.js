/* Addresses: `#/instances?status=failed`. The hash works under any mount prefix and asks nothing of the server. */

/** Take a hash apart: `{parts: ["instances"], query: {status: "failed"}}`. */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#?\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Put a hash together; empty parameters are left out. */
export function href(parts, query = {}) {
  const path = parts.map(encodeURIComponent).join("/");
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(kept).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

/** Go somewhere. `replace` leaves no entry in the history, for filters that change as one types. */
export function go(address, { replace = false } = {}) {
  if (location.hash === address) return;
  if (replace) {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

/** Call back with the parsed address, now and at each change. */
export function watch(callback) {
  const tell = () => callback(parse(location.hash));
  addEventListener("hashchange", tell);
  tell();
}
