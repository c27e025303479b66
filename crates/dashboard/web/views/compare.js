// Runs side by side: final numbers with intervals, the same curves over each other, what was set
// differently. The first run is what the others are compared with.

import { h, fill, keyed, later, say } from "/dom.js";
import { query } from "/link.js";
import { count, duration, interval, percent, value } from "/format.js";
import { short } from "/text.js";
import { Table } from "/table.js";
import { Chart, Cursor } from "/chart.js";
import { clockOf } from "/views/curves.js";

const STATE = (state) => (state === "complete" ? "complete" : state?.ended_early !== undefined ? "ended early" : "not over");

export function mount(root, at) {
  let { smooth = "", axis = "step" } = at.values;
  const cursor = new Cursor();
  const charts = new Map();
  let sets = [];
  const says = h("output", { for: "smooth" });
  const slider = h("input", { type: "range", id: "smooth", min: 0, max: 50, value: smooth || 0 });
  const choice = (to, title) => h("label", { class: "choice" },
    h("input", { type: "radio", name: "axis", value: to, checked: axis === to, onchange: () => { axis = to; keep(); draw(); } }), h("span", {}, title));
  const finals = h("div", {});
  const grid = h("div", { class: "charts" });
  const settings = h("section", {});
  const note = h("p", { class: "note", hidden: true });
  fill(root, h("h1", {}, "Compare"), note,
    h("ul", { class: "legend" }, at.runs.map((run, i) => h("li", {}, h("i", { class: `swatch c${(i % 8) + 1}` }), short(run.name, 48)))),
    h("h2", {}, "What they came to"), finals,
    h("h2", {}, "Curves"),
    h("div", { class: "tools" },
      h("div", {}, h("label", { for: "smooth" }, "Smoothing"), h("div", { class: "range" }, slider, says)),
      h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, "Axis"), choice("step", "Steps"), choice("time", "Time"))),
    grid, settings);

  const keep = () => at.keep({ smooth, axis: axis === "step" ? "" : axis });
  const tell = () => say(says, { "": "as suits each run", 1: "none" }[smooth] ?? `mean of the last ${smooth} steps`);
  const fail = (error) => { if (error.name !== "AbortError") { note.hidden = false; say(note, error.message); } };

  async function load() {
    try {
      drawFinals(await at.apiAll("compare"));
    } catch (error) {
      fail(error);
    }
    loadCurves();
  }

  async function loadCurves() {
    const asked = at.runs.map((run) => at.apiOf(run.run, `curves${query({ smooth })}`).catch((error) => { fail(error); return null; }));
    sets = await Promise.all(asked);
    draw();
  }

  function against(row) {
    const { against_first: a } = row;
    if (a === "first") return "baseline";
    if (a?.compared) {
      const reward = a.compared.rows[0];
      return `${interval(reward.change)}, p ${reward.p < 1e-4 ? "< 0.0001" : reward.p.toFixed(4)}`;
    }
    return a?.nothing ?? "–";
  }

  function drawFinals(told) {
    const table = new Table({
      caption: "Final numbers of each run", key: (row) => row.name, columns: [
        { title: "Run", wide: true, cell: (row) => h("span", {}, h("i", { class: `swatch c${(row.at % 8) + 1}` }), short(row.name, 44)) },
        { title: "State", cell: (row) => STATE(row.state) },
        { title: "Steps", n: true, cell: (row) => count(row.steps) },
        { title: "Episodes", n: true, cell: (row) => count(row.episodes) },
        { title: "Wall time", n: true, cell: (row) => duration(row.wall_ms) },
        { title: "Reward, training", n: true, hint: "Where the smoothed reward of all attempts ended", cell: (row) => value(row.reward) },
        { title: "Held-out reward, 95 %", n: true, cell: (row) => interval(row.measured?.reward) },
        { title: "Repaired, 95 %", n: true, cell: (row) => interval(row.measured?.success, percent) },
        { title: "Reward less the first run's, 95 %", n: true, cell: against },
      ],
    });
    table.set(told.rows.map((row, i) => ({ ...row, at: i })));
    fill(finals, table.root);
    const name = (row) => row.name;
    const differ = new Table({
      caption: "Settings that differ", key: name,
      columns: [{ title: "Setting", cell: (row) => h("code", {}, row.name) },
        ...told.names.map((run, i) => ({ title: short(run, 28), cell: (row) => row.values[i] === null ? "not set" : short(row.values[i], 60) }))],
      empty: "All settings are the same.",
    });
    differ.set(told.settings);
    fill(settings, h("h2", {}, "What was set differently"), differ.root,
      told.settings_all > told.settings.length && h("p", { class: "quiet" }, `${count(told.settings_all - told.settings.length)} more are not shown.`));
  }

  function draw() {
    const ids = [];
    for (const chart of sets.flatMap((set) => set?.charts ?? [])) if (!ids.includes(chart.id)) ids.push(chart.id);
    const shown = ids.filter((id) => sets.filter((set) => set?.charts.some((chart) => chart.id === id)).length > 1);
    keyed(grid, shown, (id) => id, (id) => {
      charts.set(id, new Chart(cursor));
      return charts.get(id).root;
    });
    for (const id of shown) {
      let model = null;
      const series = [];
      sets.forEach((set, i) => {
        const chart = set?.charts.find((one) => one.id === id);
        const first = chart?.series.find((one) => !model || one.label === model.series[0].label);
        if (!first) return;
        model ??= chart;
        const of = axis === "time" ? clockOf(set.times) : (x) => x;
        const move = (p) => ({ ...p, x: of(p.x) });
        series.push({ label: short(at.runs[i].name, 28), colour: i, line: first.line.map(move), raw: [], band: (first.band ?? []).map(move) });
      });
      const more = model.series.length > 1 ? ` (${model.series[0].label})` : "";
      charts.get(id).draw({ ...model, title: model.title + more, series }, { kind: axis, of: (x) => x });
    }
  }

  slider.addEventListener("input", () => {
    smooth = slider.value === "0" ? "" : slider.value;
    tell();
    keep();
    reload();
  });
  const reload = later(150, loadCurves);
  tell();
  load();
  return { changed: load };
}
