// Actors: who supervises whom across nodes, what each is at, what waits for it.

import { h, fill, later, say } from "/dom.js";
import { query } from "/link.js";
import { count, duration, percent, rate } from "/format.js";
import { short } from "/text.js";
import { badge, Table } from "/table.js";
import { spark } from "/chart.js";
import { standing } from "/map.js";

const PAGE = 100;
const TONES = { failed: "bad", slow: "warn", stale: "idle", none: "" };
const ms = (n) => (n ? duration(n) : "–");
/** For how long an actor has been at its message. A pool's words have the time in them. */
const forSo = (actor, before) => (actor.kind === "SandboxPool" ? "" : `${before}${duration(actor.handling[1])}`);

export function mount(root, at) {
  let { as = "tree", sort = "trouble", filter = "" } = at.values;
  let offset = 0;
  let total = 0;
  let asking = null;

  const field = h("input", { type: "search", id: "filter", "data-filter": true, value: filter, placeholder: "node:rollout waiting>100 !idle", spellcheck: "false", autocomplete: "off", maxlength: 200, "aria-describedby": "filter-says" });
  const says = h("p", { id: "filter-says", class: "quiet small", role: "status" });
  const choice = (value, title) => h("label", { class: "choice" },
    h("input", { type: "radio", name: "as", value, checked: as === value, onchange: () => { as = value; offset = 0; keep(); swap(); ask(); } }), h("span", {}, title));
  const place = h("div", {});
  const pager = h("p", { class: "pager" });
  const dialog = h("dialog", { "aria-labelledby": "actor-title", class: "drawer" });
  fill(root,
    h("h1", {}, "Actors"),
    h("div", { class: "tools" },
      h("div", { class: "grow" }, h("label", { for: "filter" }, "Filter"), field),
      h("fieldset", { class: "choices" }, h("legend", { class: "hidden" }, "Order"), choice("tree", "Supervision tree"), choice("table", "Table"))),
    says, place, pager, dialog);

  const columns = [
    { title: "Actor", sort: "name", wide: true, cell: (row, cell) => name(row, cell) },
    { title: "Type", sort: "type", low: 2, cell: (row) => row.actor && row.actor.name !== row.actor.kind ? short(row.actor.kind, 32) : "" },
    { title: "State", sort: "state", cell: (row) => state(row) },
    { title: "Waiting", sort: "waiting", n: true, hint: "Messages that wait; in brackets the most that ever did", cell: (row) => row.actor ? `${count(row.actor.waiting)} (${count(row.actor.waiting_max)})` : "" },
    { title: "Oldest", sort: "oldest", n: true, hint: "How long the first of them has waited", cell: (row) => row.actor ? ms(row.actor.oldest_ms) : "" },
    { title: "Msg/s", sort: "rate", n: true, low: 1, cell: (row) => row.actor ? rate(row.actor.rate) : "" },
    { title: "Busy", sort: "busy", n: true, low: 1, hint: "Share of its time it is at a message", cell: (row) => row.actor ? percent(row.actor.busy) : "" },
    { title: "At", sort: "handler", low: 2, clip: true, hint: "The message it is at, and for how long", cell: (row) => row.actor?.handling ? `${short(row.actor.handling[0], 28)}${forSo(row.actor, " ")}` : row.node ? short(row.node.activity, 60) : "" },
    { title: "Restarts", sort: "restarts", n: true, cell: (row) => restarts(row) },
    { title: "Last cause", low: 2, clip: true, cell: (row) => short(row.actor?.last_failure ?? row.node?.last_exit ?? "", 60) },
    { title: "Up", sort: "up", n: true, low: 2, cell: (row) => row.actor ? duration(row.actor.up_ms) : "" },
  ];

  function name(row, cell) {
    const level = String(as === "tree" ? Math.min(row.level, 8) : 0);
    if (cell.dataset.level !== level) cell.dataset.level = level;
    if (row.node) return h("b", {}, short(row.node.name, 40));
    const where = as === "table" ? h("span", { class: "quiet" }, `${short(row.actor.node, 24)} / `) : null;
    return h("span", {}, where, short(row.actor.name, 48));
  }

  function state(row) {
    if (row.node) {
      const [word, tone] = standing({ ...row.node, stale: row.node.age_ms > 5000 });
      return badge(word, tone);
    }
    const word = row.actor.trouble === "slow" ? `${row.actor.state}, slow` : row.actor.state;
    return badge(word, TONES[row.actor.trouble]);
  }

  const restarts = (row) => (row.actor ? count(row.actor.restarts) : row.node.restarts == null ? "" : count(row.node.restarts));

  let table;
  function swap() {
    table = new Table({
      caption: as === "tree" ? "Supervision tree" : "Actors",
      columns, sort: as === "table" ? sort : null,
      key: (row) => (row.node ? `node ${row.node.name}` : `${row.actor.node} ${row.actor.name}`),
      tone: (row) => (row.actor ? TONES[row.actor.trouble] : "node"),
      open: (row) => row.actor && show(row.actor),
      onSort: as === "table" ? (by) => { sort = sort === by ? `-${by}` : by; offset = 0; keep(); table.sorted(sort); ask(); } : null,
      empty: "No actor passes the filter.",
    });
    table.root.classList.toggle("tree", as === "tree");
    fill(place, table.root);
  }

  const keep = () => at.keep({ as: as === "tree" ? "" : as, sort: sort === "trouble" ? "" : sort, filter });

  async function ask() {
    if (asking) return;
    asking = true;
    try {
      const answer = await at.api(as === "tree" ? `tree${query({ filter, offset })}` : `actors${query({ sort, filter, limit: PAGE, offset })}`);
      const rows = as === "tree" ? answer.rows : answer.rows.map((actor) => ({ level: 0, actor }));
      total = answer.total;
      table.set(rows);
      const old = answer.age_ms > 5000 ? ` As seen ${duration(answer.age_ms)} ago.` : "";
      const off = answer.link.state === "off";
      table.empty.textContent = off && !answer.age_ms ? "No cluster is up. Actors are shown while a run is under way." : "No actor passes the filter.";
      say(says, off && answer.age_ms ? `The cluster is down.${old}` : old.trim());
      field.setAttribute("aria-invalid", "false");
      const shown = rows.length;
      say(pager, total > shown ? `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)} rows; n and p turn pages` : shown ? `${count(total)} rows` : "");
    } catch (error) {
      if (error.name !== "AbortError") {
        say(says, error.message);
        field.setAttribute("aria-invalid", String(error.message.startsWith("filter")));
      }
    }
    asking = null;
  }

  async function show(actor) {
    try {
      const told = await at.api(`actor${query({ node: actor.node, name: actor.name })}`);
      const row = told.actor;
      const pairs = [
        ["Node", row.node], ["Type", row.kind], ["Supervisor", row.parent ?? "none"], ["State", row.state],
        ["Waiting", `${count(row.waiting)}, at most ${count(row.waiting_max)} ever; the oldest for ${ms(row.oldest_ms)}`],
        ["At", row.handling ? `${row.handling[0]}${forSo(row, ", for ")}` : "nothing"],
        ["Handled", `${count(row.handled)} messages, ${rate(row.rate)} a second, busy ${percent(row.busy)}`],
        ["Restarts", count(row.restarts)], ["Last cause", row.last_failure ?? "never failed"], ["Up", duration(row.up_ms)],
        ["Supervises", told.children.join(", ") || "nobody"],
      ];
      fill(dialog, h("form", { method: "dialog" },
        h("h2", { id: "actor-title" }, short(row.name, 80)),
        spark(told.rates, 280, 40, "Messages a second over the last minute"),
        h("p", { class: "quiet small" }, "Messages a second, last minute"),
        h("dl", { class: "pairs" }, pairs.map(([title, text]) => h("div", {}, h("dt", {}, title), h("dd", {}, short(text, 400))))),
        h("button", { type: "submit", autofocus: true }, "Close")));
      dialog.showModal();
    } catch (error) {
      if (error.name !== "AbortError") at.trouble(error.message);
    }
  }

  field.addEventListener("input", later(200, () => { filter = field.value; offset = 0; keep(); ask(); }));
  swap();
  ask();

  return {
    pulse: () => { if (!document.hidden) ask(); },
    back: () => { field.value = ""; filter = ""; offset = 0; keep(); ask(); },
    page: (by) => { const size = as === "tree" ? 500 : PAGE; const next = offset + by * size; if (next >= 0 && next < total) { offset = next; ask(); } },
  };
}
