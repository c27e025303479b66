// Curves over optimizer steps or time, all read off at one cursor.

import { h, fill, keyed, later, say } from "/dom.js";
import { query } from "/link.js";
import { Chart, Cursor, bars, deedMarks } from "/chart.js";

const SMOOTH_MAX = 50;
// The order people look in: does it learn, is it stable, is it fresh, is it fast.
const ORDER = ["reward", "success", "reward-std", "kl", "entropy", "clip", "staleness", "gap-mean", "gap-max", "loss", "grad-norm", "learning-rate", "length", "tokens"];

/** From steps to seconds since the run began; what lies between two known ones is in between. */
export function clockOf(times) {
  return (step) => {
    if (!times.length) return null;
    let low = 0;
    let high = times.length - 1;
    if (step <= times[0][0]) return times[0][1];
    if (step >= times[high][0]) return times[high][1];
    while (high - low > 1) {
      const mid = (low + high) >> 1;
      if (times[mid][0] <= step) low = mid;
      else high = mid;
    }
    const [[a, x], [b, y]] = [times[low], times[high]];
    return x + ((step - a) / (b - a)) * (y - x);
  };
}

export function mount(root, at) {
  let { smooth = "", axis = "step" } = at.values;
  let data = null;
  const cursor = new Cursor();
  const charts = new Map();
  const says = h("output", { for: "smooth" });
  const slider = h("input", { type: "range", id: "smooth", min: 0, max: SMOOTH_MAX, step: 1, value: smooth || 0 });
  const choice = (value, title) => h("label", { class: "choice" },
    h("input", { type: "radio", name: "axis", value, checked: axis === value, onchange: () => { axis = value; keep(); draw(); } }), h("span", {}, title));
  const grid = h("div", { class: "charts" });
  const extra = h("div", { class: "stacks" });
  const note = h("p", { class: "quiet small" });
  const empty = h("p", { class: "empty", hidden: true });
  fill(root, h("h1", {}, "Curves"),
    h("div", { class: "tools" },
      h("div", {}, h("label", { for: "smooth" }, "Smoothing"), h("div", { class: "range" }, slider, says)),
      h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, "Axis"), choice("step", "Steps"), choice("time", "Time"))),
    empty, grid, note, extra);

  const keep = () => at.keep({ smooth, axis: axis === "step" ? "" : axis });
  const tell = () => say(says, { "": "as suits the run", 1: "none" }[smooth] ?? `mean of the last ${smooth} steps`);

  async function load() {
    try {
      data = await at.api(`curves${query({ smooth })}`);
      draw();
    } catch (error) {
      if (error.name === "AbortError") return;
      empty.hidden = false;
      say(empty, error.message);
    }
  }

  function draw() {
    if (!data) return;
    empty.hidden = data.charts.length > 0;
    say(empty, "No optimizer step has been made yet.");
    const of = axis === "time" ? clockOf(data.times) : (x) => x;
    const rank = (id) => (ORDER.includes(id) ? ORDER.indexOf(id) : ORDER.length);
    const shown = [...data.charts].sort((a, b) => rank(a.id) - rank(b.id));
    keyed(grid, shown, (chart) => chart.id, (chart) => {
      charts.set(chart.id, new Chart(cursor));
      return charts.get(chart.id).root;
    });
    const range = axis === "time" ? [0, data.times.at(-1)?.[1] ?? 1] : undefined;
    const stepAt = clockOf(data.times.map(([step, s]) => [s, step]));
    const marks = deedMarks(data.deeds, axis === "time" ? undefined : stepAt);
    for (const chart of shown) charts.get(chart.id).draw(chart, { kind: axis, of, range, marks });
    const words = [
      marks.length > 0 && `Marked: faults that people injected, and their orders (${marks.length}); Faults lists them.`,
      data.all_zero.length > 0 && `Zero at every step, so not drawn: ${data.all_zero.join("; ")}.`,
    ];
    say(note, words.filter(Boolean).join(" "));
    drawStacks();
  }

  function drawStacks() {
    const width = Math.max(280, Math.floor(extra.clientWidth));
    const figure = (stack, time) => h("figure", { class: "chart", "data-row": true, tabindex: "-1" },
      h("figcaption", {}, h("h3", {}, stack.title),
        h("p", { class: "readout" }, stack.names.map((name, i) => h("span", { class: "item" }, h("i", { class: `swatch c${i + 1}` }), name)))),
      bars(stack, [], width, { time, height: 190, deeds: time ? deedMarks(data.deeds) : [] }), h("p", { class: "quiet small" }, stack.about));
    fill(extra, data.throughput && figure(data.throughput, true), data.step_time && figure(data.step_time, false));
  }

  slider.addEventListener("input", () => {
    smooth = slider.value === "0" ? "" : slider.value;
    tell();
    keep();
    reload();
  });
  const reload = later(120, load);
  const resized = new ResizeObserver(later(100, () => data && drawStacks()));
  resized.observe(root);
  at.signal.addEventListener("abort", () => resized.disconnect());
  tell();
  load();
  return { changed: load };
}
