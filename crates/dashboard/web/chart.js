// Curves: lines with bands and dots, read off with the mouse or the arrow keys. One cursor for all
// charts of a view, so that the same step is read off everywhere.

import { h, s, fill, say } from "/dom.js";
import { duration, inUnit, moment, value } from "/format.js";
import { short } from "/text.js";

const PAD = { left: 52, right: 14, top: 10, bottom: 26 };
const HEIGHT = 196;
const BANDS_MAX = 3;

/** Round numbers between two ends, and a little around them. */
function ticks(low, high, most) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => span / m <= most) ?? 10 * power;
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) out.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return { list: out, step };
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];

function timeTicks(high, most) {
  const step = TIMES.find((t) => high / t <= most) ?? Math.ceil(high / most / 86_400) * 86_400;
  const out = [];
  for (let at = 0; at <= high; at += step) out.push(at);
  return out;
}

function label(v, step, unit) {
  if (unit === "share") return `${(100 * v).toFixed(step < 0.01 ? 1 : 0)} %`;
  if (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5)) return v.toExponential(0).replace("-", "−");
  const decimals = Math.max(0, Math.min(5, -Math.floor(Math.log10(step) + 1e-9)));
  const text = v.toFixed(step * 10 ** decimals % 1 ? decimals + 1 : decimals);
  return text.replace("-", "−");
}

/** Shared by the charts of a view: where the cursor is. */
export class Cursor {
  constructor() { this.charts = new Set(); }
  set(x) { for (const chart of this.charts) chart.point(x); }
}

/**
 * A chart. `draw(data)` takes `{ title, about, unit, x_name, series: [{ label, line, raw, band }] }`
 * and an axis `{ kind: "step" | "time", of(x), range: [low, high], marks: [{ from, to, says }] }`.
 */
export class Chart {
  constructor(cursor, { row = true } = {}) {
    this.cursor = cursor;
    cursor?.charts.add(this);
    this.title = h("h3", {});
    this.read = h("p", { class: "readout" });
    this.svg = s("svg", { role: "img", tabindex: "0", height: HEIGHT });
    this.about = h("p", {});
    this.details = h("details", { class: "about" }, h("summary", {}, "What this shows"), this.about);
    this.root = h("figure", { class: "chart", "data-row": row ? true : undefined, tabindex: row ? "-1" : undefined },
      h("figcaption", {}, this.title, this.read), this.svg, this.details);
    this.svg.addEventListener("pointermove", (event) => this.#hover(event));
    this.svg.addEventListener("pointerleave", () => this.#all(null));
    this.svg.addEventListener("focus", () => { if (this.at === undefined || this.at === null) this.#step(0, true); });
    this.svg.addEventListener("blur", () => this.#all(null));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#size()).observe(this.root);
  }

  draw(data, axis) {
    this.data = data;
    this.axis = axis;
    say(this.title, data.title);
    say(this.about, data.about);
    this.details.hidden = !data.about;
    this.#paint();
  }

  #size() {
    const width = Math.floor(this.root.clientWidth);
    if (width && width !== this.width) {
      this.width = width;
      if (this.data) this.#paint();
    }
  }

  #paint() {
    if (!this.width) return;
    const { data, axis, width } = this;
    const series = data.series.map((one, at) => ({
      ...one,
      colour: (one.colour ?? at) % 8 + 1,
      line: one.line.map((p) => ({ x: axis.of(p.x), step: p.x, y: p.y })).filter((p) => p.x !== null),
      raw: (one.raw ?? []).map((p) => ({ x: axis.of(p.x), y: p.y })).filter((p) => p.x !== null),
      band: (one.band ?? []).map((b) => ({ ...b, x: axis.of(b.x), step: b.x })).filter((b) => b.x !== null),
    }));
    this.series = series;
    const banded = series.filter((one) => one.band.length).slice(0, BANDS_MAX);
    const xs = series.flatMap((one) => [...one.line, ...one.raw]).map((p) => p.x);
    const ys = series.flatMap((one) => [...one.line, ...one.raw].map((p) => p.y))
      .concat(banded.flatMap((one) => one.band.flatMap((b) => [b.low, b.high])));
    const range = axis.range ?? [Math.min(...xs), Math.max(...xs)];
    let [x0, x1] = xs.length ? range : [0, 1];
    if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    let [y0, y1] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
    if (y0 >= 0) y0 = 0;
    if (y0 === y1) y1 = y0 + (Math.abs(y0) || 1);
    const up = ticks(y0, y1, 4);
    y0 = Math.min(y0, Math.floor(y0 / up.step + 1e-9) * up.step);
    y1 = Math.max(y1, Math.ceil(y1 / up.step - 1e-9) * up.step);
    const upward = ticks(y0, y1, 6).list.filter((t) => Math.abs(t / up.step - Math.round(t / up.step)) < 1e-6);
    const right = width - PAD.right;
    const X = (v) => PAD.left + ((v - x0) / (x1 - x0)) * (right - PAD.left);
    const Y = (v) => HEIGHT - PAD.bottom - ((v - y0) / (y1 - y0)) * (HEIGHT - PAD.bottom - PAD.top);
    this.scale = { X, Y, x0, x1 };
    const most = Math.max(2, Math.floor((right - PAD.left) / 70));
    const across = axis.kind === "time" ? timeTicks(x1, most) : ticks(x0, x1, most).list.filter((t) => Number.isInteger(t));
    const f = (n) => n.toFixed(1);
    const path = (points) => points.map((p, at) => `${at ? "L" : "M"}${f(X(p.x))} ${f(Y(p.y))}`).join("");
    const band = (bands) => bands.length < 2 ? "" : `M${bands.map((b) => `${f(X(b.x))} ${f(Y(b.high))}`).join("L")}L${[...bands].reverse().map((b) => `${f(X(b.x))} ${f(Y(b.low))}`).join("L")}Z`;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("aria-label", this.#words());
    this.line = s("line", { class: "cursor", y1: PAD.top, y2: HEIGHT - PAD.bottom, visibility: "hidden" });
    this.dots = s("g", {});
    const marks = (axis.marks ?? []).filter((mark) => mark.from !== null && mark.from <= x1 && mark.to >= x0);
    fill(this.svg,
      upward.map((t) => [
        s("line", { class: t === 0 ? "axis" : "grid", x1: PAD.left, x2: right, y1: f(Y(t)), y2: f(Y(t)) }),
        s("text", { class: "tick", x: PAD.left - 8, y: f(Y(t) + 4), "text-anchor": "end" }, label(t, up.step, data.unit)),
      ]),
      across.map((t) => s("text", { class: "tick", x: f(X(t)), y: HEIGHT - PAD.bottom + 18, "text-anchor": X(t) > right - 14 ? "end" : "middle" },
        axis.kind === "time" ? moment(t) : t.toLocaleString("en"))),
      marks.map((mark) => injected(X(Math.max(x0, mark.from)), X(Math.min(x1, mark.to)), HEIGHT, mark.says)),
      banded.map((one) => s("path", { class: `band c${one.colour}`, d: band(one.band) })),
      series.map((one) => s("path", { class: `raw c${one.colour}`, d: one.raw.map((p) => `M${f(X(p.x))} ${f(Y(p.y))}h0`).join("") })),
      [...series].reverse().map((one) => one.line.length === 1
        ? s("circle", { class: `dot c${one.colour}`, cx: f(X(one.line[0].x)), cy: f(Y(one.line[0].y)), r: 2.5 })
        : s("path", { class: `line c${one.colour}`, d: path(one.line) })),
      this.line, this.dots);
    this.#legend(null);
    if (this.at !== undefined && this.at !== null) this.point(this.at);
  }

  #words() {
    const told = this.data.series.filter((one) => one.line.length).map((one) => {
      const [first, last] = [one.line[0], one.line[one.line.length - 1]];
      return `${one.label}: from ${inUnit(first.y, this.data.unit)} at step ${first.x} to ${inUnit(last.y, this.data.unit)} at step ${last.x}`;
    });
    const marks = this.axis.marks?.length ? ` Injected faults and orders that are marked: ${this.axis.marks.length}.` : "";
    return `${this.data.title}. ${told.join(". ")}.${marks} Arrow keys read it off.`;
  }

  /** What stands above the chart: the last values, or those at the cursor. */
  #legend(at) {
    const items = this.series.map((one) => {
      const p = at === null ? one.line[one.line.length - 1] : nearest(one.line, at);
      const b = p && one.band.find((b) => b.step === p.step);
      const text = p ? inUnit(p.y, this.data.unit) : "–";
      const range = b ? ` [${inUnit(b.low, this.data.unit)}, ${inUnit(b.high, this.data.unit)}]` : "";
      return h("span", { class: "item" }, h("i", { class: `swatch c${one.colour}` }),
        this.series.length > 1 ? `${one.label} ` : "", h("b", {}, text), range);
    });
    const p = this.series.map((one) => (at === null ? one.line[one.line.length - 1] : nearest(one.line, at))).find(Boolean);
    const where = !p ? "" : this.axis.kind === "time" ? `at ${moment(p.x)} (step ${value0(p.step)})` : `at step ${value0(p.step)}`;
    fill(this.read, items, h("span", { class: "quiet" }, where));
  }

  /** Puts the cursor at this place, or away. */
  point(x) {
    this.at = x;
    if (!this.scale) return;
    const hide = x === null || !this.series.some((one) => one.line.length);
    this.line.setAttribute("visibility", hide ? "hidden" : "visible");
    fill(this.dots);
    if (hide) return this.#legend(null);
    const p = this.series.map((one) => nearest(one.line, x)).find(Boolean);
    this.line.setAttribute("x1", this.scale.X(p.x));
    this.line.setAttribute("x2", this.scale.X(p.x));
    for (const one of this.series) {
      const q = nearest(one.line, x);
      if (q) this.dots.append(s("circle", { class: `dot c${one.colour}`, cx: this.scale.X(q.x), cy: this.scale.Y(q.y), r: 3.5 }));
    }
    this.#legend(x);
  }

  #all(x) {
    if (this.cursor) this.cursor.set(x);
    else this.point(x);
  }

  #hover(event) {
    if (!this.scale) return;
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - PAD.left) / (this.width - PAD.right - PAD.left);
    this.#all(this.scale.x0 + Math.min(1, Math.max(0, share)) * (this.scale.x1 - this.scale.x0));
  }

  #key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.#step(by);
    this.read.setAttribute("aria-live", "polite");
  }

  #step(by, atEnd = false) {
    const line = this.series?.find((one) => one.line.length)?.line;
    if (!line) return;
    const here = this.at === null || this.at === undefined || atEnd ? line.length - 1 : line.indexOf(nearest(line, this.at));
    this.#all(line[Math.min(line.length - 1, Math.max(0, here + by))].x);
  }
}

const value0 = (v) => (Number.isInteger(v) ? v.toLocaleString("en") : value(v));

function nearest(line, x) {
  let best;
  for (const p of line) if (!best || Math.abs(p.x - x) < Math.abs(best.x - x)) best = p;
  return best;
}

/** The span of an injected fault, or the moment of an order, and its mark. */
function injected(from, to, height, says) {
  const f = (n) => n.toFixed(1);
  return s("g", { class: "injected" },
    s("rect", { x: f(from), y: PAD.top, width: f(Math.max(1.5, to - from)), height: height - PAD.bottom - PAD.top }),
    s("path", { class: "fault-mark", d: `M${f(from)} ${PAD.top + 4}l-4 -8h8z` }), s("title", {}, says));
}

/** Faults that were injected and orders that were given, as a chart marks them: those that were refused did nothing. */
export function deedMarks(deeds, of = (x) => x) {
  return deeds.filter((deed) => deed.is_done).map((deed) => ({
    from: of(deed.at_s),
    to: of(deed.at_s + (deed.lasts_s ?? 0)),
    says: `${moment(deed.at_s)}: ${short(deed.target, 40)}: ${short(deed.what, 120)}${deed.lasts_s === null ? "" : ` for ${duration(deed.lasts_s * 1000)}`}, by ${short(deed.who, 40)}`,
  }));
}

/** Bars on top of each other over time or over steps, with marks of what happened and of what was injected. */
export function bars(stack, marks, width, { height = 150, time = true, deeds = [] } = {}) {
  const right = width - PAD.right;
  const end = Math.max(stack.bars.at(-1)?.to ?? 1, ...marks.map((m) => m.at_s), ...deeds.map((deed) => deed.from), 1);
  const high = Math.max(1e-9, ...stack.bars.map((b) => b.parts.reduce((a, c) => a + c, 0)));
  const X = (v) => PAD.left + (v / end) * (right - PAD.left);
  const Y = (v) => height - PAD.bottom - (v / high) * (height - PAD.bottom - PAD.top);
  const up = ticks(0, high, 3);
  const most = Math.max(2, Math.floor((right - PAD.left) / 70));
  const where = (t) => (time ? moment(t) : t.toLocaleString("en"));
  const f = (n) => n.toFixed(1);
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${stack.title}, with ${marks.length} marks of faults and ${deeds.length} of what was injected or ordered` },
    up.list.map((t) => [
      s("line", { class: t === 0 ? "axis" : "grid", x1: PAD.left, x2: right, y1: f(Y(t)), y2: f(Y(t)) }),
      s("text", { class: "tick", x: PAD.left - 8, y: f(Y(t) + 4), "text-anchor": "end" }, label(t, up.step, "plain")),
    ]),
    (time ? timeTicks(end, most) : ticks(0, end, most).list.filter(Number.isInteger)).map((t) =>
      s("text", { class: "tick", x: f(X(t)), y: height - PAD.bottom + 18, "text-anchor": X(t) > right - 14 ? "end" : "middle" }, where(t))),
    stack.bars.map((bar) => {
      let from = 0;
      return bar.parts.map((part, at) => {
        const [low, top] = [from, from + part];
        from = top;
        const wide = Math.max(0.5, X(bar.to) - X(bar.from) - 1);
        return part > 0 && s("rect", { class: `bar c${at + 1}`, x: f(X(bar.from) + 0.5), y: f(Y(top)), width: f(wide), height: f(Math.max(0, Y(low) - Y(top))) },
          s("title", {}, `${where(bar.from)} to ${where(bar.to)}: ${stack.names[at]} ${inUnit(part, stack.unit)}`));
      });
    }),
    deeds.map((deed) => injected(X(deed.from), X(Math.min(end, deed.to)), height, deed.says)),
    marks.map((m) => [
      s("line", { class: "fault-line", x1: f(X(m.at_s)), x2: f(X(m.at_s)), y1: PAD.top - 4, y2: height - PAD.bottom }),
      s("path", { class: "fault-mark", d: `M${f(X(m.at_s))} ${PAD.top + 4}l-4 -8h8z` }, s("title", {}, `${moment(m.at_s)}: ${m.name} ${m.node}`)),
    ]));
}

/** A line of a few values, without axes. */
export function spark(values, width = 120, height = 28, name = "") {
  const svg = s("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  if (values.length < 2) return svg;
  const high = Math.max(...values, 1e-9);
  const low = Math.min(0, ...values);
  const at = (v, i) => `${((i / (values.length - 1)) * (width - 2) + 1).toFixed(1)} ${(height - 2 - ((v - low) / (high - low)) * (height - 4)).toFixed(1)}`;
  svg.append(s("path", { class: "line c1", d: `M${values.map(at).join("L")}` }));
  return svg;
}
