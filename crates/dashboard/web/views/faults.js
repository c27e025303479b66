// What went wrong and was mended, over time; what people injected and ordered; the faults that are at work; and
// the run's history.

import { h, fill, later, say } from "/dom.js";
import { query } from "/link.js";
import { clock, count, duration, moment, utc } from "/format.js";
import { short } from "/text.js";
import { badge, Table } from "/table.js";
import { bars, deedMarks } from "/chart.js";

const NAMES = { node_down: "nodes lost", node_up: "nodes back", lease_lost: "leases lost", restarted: "coordinator restarts", rolled_back: "learner rolled back", quarantined: "tasks quarantined", restored: "ledgers restored" };
const GOOD = new Set(["node_up"]);

export function mount(root, at) {
  let filter = at.values.filter ?? "";
  let data = null;
  const says = h("p", { class: "note", hidden: true });
  const counts = h("dl", { class: "facts small" });
  const line = h("div", { class: "timeline" });
  const marks = new Table({
    caption: "Faults and repairs", key: (row) => `${row.at_s} ${row.kind} ${row.node} ${row.detail}`, columns: [
      { title: "After", cell: (row) => moment(row.at_s) },
      { title: "What", cell: (row) => badge(row.name + (row.times > 1 ? ` ${row.times}×` : ""), GOOD.has(row.kind) ? "good" : "warn") },
      { title: "Node", cell: (row) => short(row.node, 40) },
      { title: "More", wide: true, cell: (row) => short(row.detail, 160) },
    ],
    empty: "Nothing went wrong.",
  });
  const deeds = new Table({
    caption: "Injected faults and orders", key: (row) => `${row.at_s} ${row.target} ${row.what} ${row.nth}`, columns: [
      { title: "After", cell: (row) => moment(row.at_s) },
      { title: "For", n: true, cell: (row) => (row.lasts_s === null ? "–" : duration(row.lasts_s * 1000)) },
      { title: "What", wide: true, cell: (row) => short(row.what, 160) },
      { title: "To", cell: (row) => short(row.target, 40) },
      { title: "By", cell: (row) => short(row.who, 40) },
      { title: "Came of it", cell: (row) => badge(row.outcome ?? "not known", row.is_done ? "" : "idle") },
    ],
  });
  const older = h("p", { class: "note", hidden: true });
  const asked = h("section", { hidden: true, "aria-labelledby": "asked" }, h("h2", { id: "asked" }, "Injected faults and orders"), older, deeds.root);
  const active = h("section", { hidden: true });
  const processes = h("section", { hidden: true });
  const field = h("input", { type: "search", id: "filter", "data-filter": true, value: filter, placeholder: "event:stepped node:rollout !dispatched", spellcheck: "false", autocomplete: "off", maxlength: 200 });
  const told = h("p", { class: "quiet small", role: "status" });
  const history = new Table({
    caption: "History", key: (row) => row.key, tone: (row) => (row.weight === "trouble" ? "warn" : ""), columns: [
      { title: "Time, UTC", cell: (row) => h("time", { datetime: new Date(row.at_ms).toISOString(), title: utc(row.at_ms) }, clock(row.at_ms)) },
      { title: "Event", cell: (row) => row.event },
      { title: "Node", cell: (row) => short(row.node, 40) },
      { title: "More", wide: true, cell: (row) => short(row.detail, 200) },
    ],
    empty: "No event passes the filter.",
  });
  fill(root, h("h1", {}, "Faults and restarts"), says, counts, line, active, marks.root, asked, processes,
    h("section", { "aria-labelledby": "history" }, h("h2", { id: "history" }, "History"),
      h("div", { class: "tools" }, h("div", { class: "grow" }, h("label", { for: "filter" }, "Filter"), field)), told, history.root));

  async function load() {
    try {
      data = await at.api("faults");
      draw();
    } catch (error) {
      if (error.name !== "AbortError") { says.hidden = false; say(says, error.message); }
    }
  }

  function draw() {
    says.hidden = !data.problem;
    say(says, data.problem ?? "");
    const restarts = (data.processes ?? []).reduce((sum, one) => sum + (one.restarts ?? 0), 0);
    const pairs = [...(data.counts ?? []).map(([kind, n]) => [NAMES[kind] ?? kind, n]), ["process restarts", restarts]];
    fill(counts, pairs.map(([title, n]) => h("div", {}, h("dt", {}, title), h("dd", {}, h("b", {}, count(n))))));
    marks.set(data.marks);
    asked.hidden = !data.deeds.length;
    older.hidden = !data.deeds_left_out;
    say(older, data.deeds_left_out > 0 ? `${count(data.deeds_left_out)} older ones are not shown; orders.jsonl in the run's folder has them.` : "");
    deeds.set(data.deeds.map((deed, nth) => ({ ...deed, nth: data.deeds_left_out + nth })));
    drawActive(data.active);
    processes.hidden = !data.processes?.length;
    if (data.processes?.length) {
      const table = new Table({
        caption: "Processes", key: (row) => row.name, columns: [
          { title: "Process", cell: (row) => short(row.name, 40) },
          { title: "Roles", cell: (row) => row.roles.join(", ") },
          { title: "Restarts", n: true, cell: (row) => count(row.restarts) },
          { title: "Ended last", wide: true, cell: (row) => short(row.last_exit ?? "", 120) },
          { title: "", cell: (row) => row.given_up ? badge("given up", "bad") : "" },
        ],
      });
      table.set(data.processes);
      fill(processes, h("h2", {}, "Processes"), table.root);
    }
    drawLine();
  }

  function drawLine() {
    if (!data) return;
    const width = Math.max(280, Math.floor(line.clientWidth));
    const span = (data.wall_ms ?? 0) / 1000;
    const done = deedMarks(data.deeds);
    const stack = data.throughput ?? { title: "Time", names: [], bars: [{ from: 0, to: span, parts: [] }], unit: "plain" };
    fill(line, h("figure", { class: "chart" },
      h("figcaption", {}, h("h3", {}, data.throughput ? "Episodes that came back per minute, and what went wrong" : "What went wrong"),
        h("p", { class: "readout" }, stack.names.map((name, i) => h("span", { class: "item" }, h("i", { class: `swatch c${i + 1}` }), name)),
          data.marks.length > 0 && h("span", { class: "item" }, h("i", { class: "swatch fault" }), "fault"),
          done.length > 0 && h("span", { class: "item" }, h("i", { class: "swatch fault injected" }), "injected or ordered"))),
      bars(stack, data.marks.filter((mark) => !GOOD.has(mark.kind)), width, { height: 170, deeds: done })));
  }

  function drawActive(list) {
    active.hidden = !list?.length;
    if (!list?.length) return;
    fill(active, h("h2", {}, "Injected faults, as their nodes tell of them"), h("ul", { class: "plain" }, list.map((fault) => h("li", {},
      badge(fault.active ? "at work" : "over", fault.active ? "warn" : "idle"), h("b", {}, short(fault.node, 40)), h("span", {}, short(fault.what, 200)),
      h("span", { class: "quiet" }, `fired ${count(fault.fired)} times, seen for ${duration(fault.seen_ms)}`)))));
  }

  async function events() {
    try {
      const answer = await at.api(`history${query({ filter, limit: 100 })}`);
      const seen = new Map();
      history.set(answer.rows.map((row) => {
        const name = `${row.at_ms} ${row.event} ${row.node} ${row.detail}`;
        const n = seen.get(name) ?? 0;
        seen.set(name, n + 1);
        return { ...row, key: `${name} ${n}` };
      }));
      say(told, `The newest ${count(answer.rows.length)} that pass, of the last ${count(answer.kept)} events${answer.unreadable ? `; ${count(answer.unreadable)} lines cannot be read` : ""}.`);
      field.setAttribute("aria-invalid", "false");
    } catch (error) {
      if (error.name === "AbortError") return;
      say(told, error.message);
      field.setAttribute("aria-invalid", "true");
    }
  }

  const keep = () => at.keep({ filter });
  field.addEventListener("input", later(200, () => { filter = field.value; keep(); events(); }));
  const resized = new ResizeObserver(later(100, drawLine));
  resized.observe(root);
  at.signal.addEventListener("abort", () => resized.disconnect());
  load();
  events();
  return {
    pulse: (pulse) => { drawActive(pulse.faults ?? []); if (pulse.link.state === "live" && !document.hidden) events(); },
    changed: () => { load(); events(); },
    back: () => { field.value = ""; filter = ""; keep(); events(); },
  };
}
