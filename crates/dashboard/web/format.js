// Numbers, as people read them.

const NONE = "–";
const minus = (text) => text.replaceAll("-", "−");

/** A count, its thousands apart. */
export const count = (n) => (n === null || n === undefined ? NONE : Math.round(n).toLocaleString("en"));

/** A value in about four digits. */
export function value(v) {
  if (v === null || v === undefined || !Number.isFinite(v)) return NONE;
  const size = Math.abs(v);
  if (size === 0) return "0";
  if (size < 1e-3) return minus(v.toExponential(2));
  if (size < 100) return minus(v.toFixed(3));
  if (size < 10_000) return minus(v.toFixed(1));
  return minus(count(v));
}

/** A value with three decimals. */
export const fixed = (v) => (v === null || v === undefined || !Number.isFinite(v) ? NONE : minus(v.toFixed(3)));

/** A share in per cent. */
export const percent = (v) => (v === null || v === undefined || !Number.isFinite(v) ? NONE : `${(100 * v).toFixed(1)} %`);

/** A value in the unit of a chart. */
export function inUnit(v, unit) {
  if (unit === "share") return percent(v);
  if (unit === "count") return count(v);
  if (unit === "seconds") return `${value(v)} s`;
  return value(v);
}

/** A rate: `0`, `3.4`, `120`, `15.2k`. */
export function rate(v) {
  if (v === null || v === undefined || !Number.isFinite(v)) return NONE;
  if (v === 0) return "0";
  if (v < 10) return v.toFixed(1);
  if (v < 10_000) return v.toFixed(0);
  if (v < 1e6) return `${(v / 1e3).toFixed(1)}k`;
  return `${(v / 1e6).toFixed(1)}M`;
}

/** A length of time: `7 ms`, `0.8 s`, `42 s`, `5 min 36 s`, `2 h 05 min`. */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  const s = Math.floor(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 10) return `${s}.${Math.floor((ms % 1000) / 100)} s`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${two(Math.floor((s % 86_400) / 3600))} h`;
}

/** A moment since the run began. */
export const moment = (s) => (s < 1 ? "0" : duration(s * 1000).replace(/ 00 (s|min)$/, ""));

/** Memory. */
export function bytes(n) {
  if (!n) return NONE;
  const mib = n / (1 << 20);
  if (mib < 10) return `${mib.toFixed(1)} MiB`;
  return mib < 1000 ? `${mib.toFixed(0)} MiB` : `${(mib / 1024).toFixed(1)} GiB`;
}

/** CPU time, of one core. */
export const cores = (v) => (v === null || v === undefined ? NONE : `${v.toFixed(0)} %`);

/** GPUs: the first whole, `0: 93 %, 40 of 80 GiB, H100 80GB HBM3`, and how many more there are. */
export function gpus(list) {
  if (!list?.length) return NONE;
  const more = list.length > 1 ? ` (+${list.length - 1})` : "";
  return gpu(list[0]) + more;
}

/** One GPU; what it does not measure is absent. */
export function gpu(one) {
  const gib = (n) => (n === null || n === undefined ? NONE : (n / (1 << 30)).toFixed(0));
  const busy = one.busy_percent === null || one.busy_percent === undefined ? NONE : `${one.busy_percent} %`;
  return `${one.index}: ${busy}, ${gib(one.used_bytes)} of ${gib(one.memory_bytes)} GiB, ${one.name.replace(/^NVIDIA /, "")}`;
}

/** Two quantiles of a round trip: `0.31 / 4.2 ms`. */
export function roundTrip(p50, p99) {
  if (p50 === null || p50 === undefined || p99 === null || p99 === undefined) return NONE;
  const ms = (v) => v.toFixed(v < 1 ? 2 : v < 10 ? 1 : 0);
  return `${ms(p50)} / ${ms(p99)} ms`;
}

/** How far a clock is ahead: `0 ms`, `+940 ms`, `−4.2 s`. */
export function skew(ms) {
  if (ms === null || ms === undefined) return NONE;
  const whole = Math.round(ms);
  return (whole > 0 ? "+" : whole < 0 ? "−" : "") + duration(Math.abs(whole));
}

/** Time of day, UTC. */
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

/** Day and time, UTC. */
export const utc = (ms) => `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** An interval: `0.250 [0.221, 0.280]`. */
export function interval(i, format = fixed) {
  return i ? `${format(i.value)} [${format(i.low)}, ${format(i.high)}]` : NONE;
}
