// Episodes: those under way, and a page of those that were handed out, as filtered.

import { h, fill, later, say } from "/dom.js";
import { query } from "/link.js";
import { count, duration, fixed } from "/format.js";
import { short } from "/text.js";
import { badge, Table } from "/table.js";

const PAGE = 50;
const FIELDS = ["task", "outcome", "state", "node", "version", "phase", "reward_min", "reward_max", "group"];

/** The word and the tone of what came of an episode. */
export function outcome(row) {
  if (row.success === true) return ["solved", "good"];
  if (row.state === "failed" || row.state === "quarantined") return [row.state, "bad"];
  if (row.state === "leased") return ["under way", "idle"];
  if (row.success === false) return ["not solved", ""];
  return [row.state, ""];
}

export function mount(root, at) {
  const chosen = Object.fromEntries(FIELDS.map((name) => [name, at.values[name] ?? ""]));
  let sort = at.values.sort ?? "-episode";
  let offset = Number(at.values.offset ?? 0) || 0;
  let until = at.values.until ? Number(at.values.until) : null;
  let total = 0;

  const text = h("input", { type: "search", id: "f-task", "data-filter": true, value: chosen.task, placeholder: "part of a task's name", spellcheck: "false", autocomplete: "off" });
  const number = (name, title) => h("div", {}, h("label", { for: `f-${name}` }, title),
    h("input", { type: "number", id: `f-${name}`, step: "0.05", value: chosen[name], class: "small", oninput: later(250, (event) => set(name, event.target.value)) }));
  const selects = {};
  const select = (name, title) => {
    selects[name] = h("select", { id: `f-${name}`, onchange: (event) => set(name, event.target.value) }, h("option", { value: "" }, "all"));
    return h("div", {}, h("label", { for: `f-${name}` }, title), selects[name]);
  };
  const says = h("p", { class: "quiet small", role: "status" });
  const newer = h("button", { type: "button", class: "newer", hidden: true, onclick: () => { until = null; offset = 0; keep(); load(); } });
  const pager = h("div", { class: "pager" });
  const live = h("details", { class: "live", hidden: true, open: true }, h("summary", {}));
  fill(root, h("h1", {}, "Rollouts"),
    h("div", { class: "tools" },
      h("div", { class: "grow" }, h("label", { for: "f-task" }, "Task"), text),
      select("outcome", "Outcome"), select("state", "State"), select("node", "Node"), select("version", "Version"), select("phase", "Phase"),
      number("reward_min", "Reward from"), number("reward_max", "to"),
      h("div", {}, h("span", { class: "label", "aria-hidden": "true" }, "\u00a0"), h("button", { type: "button", onclick: clear }, "Clear"))),
    says, live, newer);

  const columns = [
    { title: "Episode", sort: "episode", n: true, cell: (row) => h("a", { href: at.href("episode", [row.episode]) }, String(row.episode)) },
    { title: "Task", sort: "task", wide: true, cell: (row) => short(row.task, 64) },
    { title: "Reward", sort: "reward", n: true, cell: (row) => fixed(row.reward) },
    { title: "Outcome", cell: (row) => badge(...outcome(row)) },
    { title: "State", low: 1, cell: (row) => row.evaluation ? "evaluation" : row.state },
    { title: "Step", sort: "step", n: true, low: 1, cell: (row) => row.step === null ? "–" : count(row.step) },
    { title: "Version", n: true, low: 1, hint: "Oldest adapter a token was drawn under", cell: (row) => row.version === null ? "–" : `v${row.version}` },
    { title: "Tokens", sort: "tokens", n: true, low: 1, cell: (row) => count(row.tokens) },
    { title: "Node", low: 2, cell: (row) => short(row.node ?? "–", 28) },
    { title: "Group", n: true, low: 2, cell: (row) => String(row.group) },
    { title: "Reason", low: 2, wide: true, cell: (row) => short(row.reason ?? "", 60) },
  ];
  const table = new Table({
    caption: "Episodes", columns, sort, key: (row) => row.episode,
    open: (row) => { location.hash = at.href("episode", [row.episode]); },
    onSort: (by) => { sort = sort === `-${by}` ? by : `-${by}`; offset = 0; keep(); table.sorted(sort); load(); },
    empty: "No episode passes the filter.",
  });
  const under = new Table({
    caption: "Episodes under way", key: (row) => row.episode,
    open: (row) => { location.hash = at.href("episode", [row.episode]); },
    columns: [
      { title: "Episode", n: true, cell: (row) => h("a", { href: at.href("episode", [row.episode]) }, String(row.episode)) },
      { title: "Task", wide: true, cell: (row) => short(row.task, 56) },
      { title: "Doing", cell: (row) => short(row.doing, 48) },
      { title: "For", n: true, cell: (row) => duration(row.idle_ms) },
      { title: "Turns", n: true, low: 1, cell: (row) => count(row.turns) },
      { title: "Calls", n: true, low: 1, cell: (row) => count(row.calls) },
      { title: "Version", n: true, low: 1, cell: (row) => `v${row.version}${row.behind ? ` (${row.behind} behind)` : ""}` },
      { title: "Node", low: 2, cell: (row) => short(row.node, 28) },
      { title: "Age", n: true, low: 2, cell: (row) => duration(row.age_ms) },
    ],
    tone: (row) => (row.idle_ms > 30_000 ? "warn" : ""),
  });
  live.append(under.root);
  root.append(table.root, pager);

  const keep = () => at.keep({ ...chosen, sort: sort === "-episode" ? "" : sort, offset: offset || "", until: until ?? "" });

  function set(name, to) {
    chosen[name] = to;
    offset = 0;
    keep();
    load();
  }

  function clear() {
    for (const name of FIELDS) chosen[name] = "";
    text.value = "";
    for (const one of Object.values(selects)) one.value = "";
    for (const name of ["reward_min", "reward_max"]) document.getElementById(`f-${name}`).value = "";
    set("task", "");
  }

  let asked = 0;
  async function load() {
    const mine = ++asked;
    try {
      const answer = await at.api(`episodes${query({ ...chosen, sort, limit: PAGE, offset, until })}`);
      if (mine !== asked) return;
      // What is shown stays where it is while a run goes on: newer ones wait behind a button.
      if (until === null && answer.newest !== null) until = answer.newest;
      total = answer.total;
      table.set(answer.rows);
      newer.hidden = !(answer.newer > 0);
      say(newer, `Show ${count(answer.newer)} newer`);
      say(says, "");
      drawPager(answer);
    } catch (error) {
      if (error.name !== "AbortError") say(says, error.message);
    }
  }

  function drawPager(answer) {
    const last = Math.min(total, offset + answer.rows.length);
    const turn = (by, title) => h("button", { type: "button", disabled: by < 0 ? offset === 0 : last >= total, onclick: () => page(by) }, title);
    fill(pager, turn(-1, "Previous"), h("span", { role: "status" }, total ? `${count(offset + 1)} to ${count(last)} of ${count(total)}` : "none"), turn(1, "Next"));
  }

  function page(by) {
    const next = offset + by * PAGE;
    if (next < 0 || next >= total) return;
    offset = next;
    keep();
    load();
  }

  async function facets() {
    try {
      const told = await at.api("facets");
      const options = (name, values) => fill(selects[name], h("option", { value: "" }, "all"), values.map(([v, title]) => h("option", { value: v, selected: String(chosen[name]) === String(v) }, title)));
      const plain = (pairs, title = (v) => v) => pairs.map(([v, n]) => [v, `${short(title(v), 32)} (${count(n)})`]);
      options("outcome", [["solved", "solved"], ["unsolved", "not solved"]]);
      options("state", plain(told.states));
      options("node", plain(told.nodes));
      options("version", plain([...told.versions].sort((a, b) => b[0] - a[0]), (v) => `v${v}`));
      options("phase", plain([...told.phases].sort((a, b) => a[0] - b[0]), (v) => told.phase_names[v] ?? `phase ${v}`));
    } catch (error) {
      if (error.name !== "AbortError") say(says, error.message);
    }
  }

  async function drawLive() {
    try {
      const told = await at.api("live");
      live.hidden = !told.all;
      say(live.firstElementChild, `Under way: ${count(told.all)}`);
      if (live.open) under.set(told.rows);
    } catch (error) {
      if (error.name !== "AbortError") live.hidden = true;
    }
  }
  live.addEventListener("toggle", drawLive);

  text.addEventListener("input", later(200, () => set("task", text.value)));
  facets();
  load();
  return {
    pulse: (pulse) => { if (!document.hidden && pulse.link.state === "live") drawLive(); else if (pulse.link.state !== "live") live.hidden = true; },
    changed: load,
    page,
    back: clear,
  };
}
