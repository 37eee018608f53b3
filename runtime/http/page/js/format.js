/* Numbers, times and names as people read them. Pure. */

/** Milliseconds since the epoch of an ISO text or a number of seconds; null for neither. */
export function toMs(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return value * 1000;
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? null : ms;
}

const UNITS = [
  [86_400_000, "d", 3_600_000, "h"],
  [3_600_000, "h", 60_000, "min"],
  [60_000, "min", 1000, "s"],
];

/** "3 d 4 h", "2 min 5 s", "4.2 s", "180 ms". */
export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  const value = Math.max(0, ms);
  for (const [unit, name, lower, lowerName] of UNITS) {
    if (value < unit) continue;
    const whole = Math.floor(value / unit);
    const rest = Math.floor((value % unit) / lower);
    return rest && whole < 20 ? `${whole} ${name} ${rest} ${lowerName}` : `${whole} ${name}`;
  }
  if (value >= 9950) return `${Math.round(value / 1000)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${Math.round(value)} ms`;
}

/** "in 5 min", "3 s ago", "now". */
export function relative(ms, now) {
  const distance = ms - now;
  if (Math.abs(distance) < 1000) return "now";
  return distance > 0 ? `in ${remaining(distance)}` : `${coarse(-distance)} ago`;
}

/** How long something still takes, to the nearest unit: a month that has just begun is 30 days, not 29. */
export function remaining(ms) {
  const [unit] = UNITS.find(([one]) => ms >= one) ?? [1000];
  return coarse(ms + unit / 2);
}

/** A duration in one unit: what changes once a second must not dance. */
export function coarse(ms) {
  for (const [unit, name] of UNITS) if (ms >= unit) return `${Math.floor(ms / unit)} ${name}`;
  return `${Math.floor(ms / 1000)} s`;
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** "14:05:09", with the date where it is not today's. */
export function clock(ms, now = Date.now()) {
  const at = new Date(ms);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  if (at.toDateString() === new Date(now).toDateString()) return time;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

/** The full local time, for tooltips. */
export function fullTime(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(ms, ms)}.${pad(at.getMilliseconds(), 3)}`;
}

/** "14:05:09.123": lines of a log. */
export function fineClock(ms) {
  return `${clock(ms, ms)}.${pad(new Date(ms).getMilliseconds(), 3)}`;
}

/** "12 MB". */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let number = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (number < 1000 || unit === "GB")
      return `${number >= 100 || unit === "B" ? Math.round(number) : number.toFixed(1)} ${unit}`;
    number /= 1000;
  }
  return "–";
}

/** "1,234". */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** The end of an id, which is what tells time-ordered ids apart; short ids whole. */
export function shortId(id) {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-7/.test(id) ? `…${id.slice(-12)}` : id;
}

/** A value on one line, cut to a length. */
export function brief(value, most = 120) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** "1 step", "2 steps". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
