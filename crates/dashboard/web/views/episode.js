// One episode: what it was to repair, turn by turn what it said and did, what it changed beside what
// the reference changes, what that earned.

import { h, fill, say } from "/dom.js";
import { query } from "/link.js";
import { count, duration, fixed, value } from "/format.js";
import { block, short } from "/text.js";
import { badge } from "/table.js";
import { callBox } from "/call.js";
import { patch } from "/patch.js";
import { drawLegend, picker, tokens } from "/tokens.js";
import { UnderWay } from "/under_way.js";
import { outcome } from "/views/rollouts.js";

const FINISHES = { done: "said it was done", call_limit: "out of calls", token_limit: "out of tokens", time_limit: "out of time", failed: "the harness failed" };
const TURNS_OPEN = 12;
// States of the ledger of which more is to come.
const UNDER_WAY = ["leased", "queued"];

export function mount(root, at) {
  const id = at.rest[0];
  let data = null;
  let colour = at.values.colour ?? "";
  let live = null;
  // Whether one whose cluster had ended may be followed again.
  let again = false;
  const head = h("div", { class: "title" });
  const body = h("div", {});
  const place = h("div", {});
  const says = h("p", { class: "hidden", role: "status" });
  fill(root, says, head, body);
  const textOf = (of, more = {}) => (from) => `runs/${at.run}/episodes/${id}/text${query({ of, ...more, from })}`;

  async function load() {
    const is_first = data === null;
    if (is_first) {
      fill(head, h("h1", {}, `Episode ${id}`));
      fill(body, h("p", { class: "quiet" }, "Reading …"));
    }
    try {
      const told = await at.api(`episodes/${encodeURIComponent(id)}`);
      // Its turns stay up until there is a transcript to take their place.
      if (live && !told.left && UNDER_WAY.includes(told.row.state)) return;
      data = told;
      const is_at_newest = live?.stay.checked;
      const is_inside = body.contains(document.activeElement);
      if (live) {
        live.close();
        say(says, `The episode is over: ${outcome(data.row)[0]}, reward ${fixed(data.row.reward)}.`);
        live = null;
      }
      draw();
      if (is_inside) document.getElementById("main").focus({ preventScroll: true });
      // What it earned stands at the top.
      if (is_at_newest) window.scrollTo(0, 0);
      follow();
    } catch (error) {
      if (error.name !== "AbortError" && is_first) fill(body, h("p", { class: "empty" }, error.message));
    }
  }

  function draw() {
    const { row, left } = data;
    const go = (to, title, key) => to === null ? h("span", { class: "button off" }, title) : h("a", { class: "button", href: at.href("episode", [to]), title: `key ${key}` }, title);
    fill(head,
      h("div", {}, h("p", { class: "quiet small crumbs" }, h("a", { href: at.href("rollouts") }, "Rollouts"), " / ", short(row.task, 80)),
        h("h1", {}, `Episode ${row.episode} `, badge(...outcome(row)))),
      h("div", { class: "buttons" }, go(data.before, "← Previous", "p"), go(data.after, "Next →", "n")));
    const facts = [
      ["Reward", fixed(row.reward)],
      ["Phase", `${short(data.phase ?? `phase ${row.phase}`, 40)}${row.step === null ? "" : `, step ${count(row.step)}`}`],
      ["Node", short(row.node ?? "–", 40)],
      ["Adapter", left?.adapters.length ? versions().map((v) => `v${v}`).join(", ") : row.version === null ? "–" : `v${row.version}`],
      left && ["Ended", FINISHES[left.finish] ?? left.finish],
      left && ["Tokens", `${count(left.generated)} generated of ${count(left.tokens)}`],
      left && ["Took", duration(left.wall_ms)],
      left && ["Temperature", String(Number(left.temperature.toFixed(3)))],
      ["State", `${row.evaluation ? "evaluation, " : ""}${row.state}${row.attempt > 1 ? `, lease ${row.attempt}` : ""}`],
      row.reason && ["Reason", short(row.reason, 200)],
      data.task && ["Kind of bug", short(data.task.kind, 40)],
    ].filter(Boolean);
    fill(body,
      h("dl", { class: "facts small" }, facts.map(([title, text]) => h("div", {}, h("dt", {}, title), h("dd", {}, h("b", {}, text))))),
      group(),
      left ? [reward(), patches(), statement(), turns()] : [statement(), place]);
    if (!left) fill(place, h("p", { class: "empty" }, "It left no transcript: it is under way, failed, or waits to be handed out again."));
  }

  function statement() {
    return data.task && h("section", {}, h("h2", {}, "What it was told"), block(data.task.statement, "Task statement", textOf("statement"), "prose"));
  }

  function group() {
    if (data.group.length < 2) return null;
    return h("section", { class: "group" }, h("h2", {}, `The ${count(data.group.length)} attempts of its group`),
      h("ul", { class: "chips" }, data.group.map((one) => h("li", {},
        h("a", { href: at.href("episode", [one.episode]), "data-tone": one.success ? "good" : "", "aria-current": one.episode === data.row.episode ? "true" : undefined },
          fixed(one.reward), h("span", { class: "hidden" }, ` episode ${one.episode}${one.success ? ", solved" : ""}`), one.success && h("span", { "aria-hidden": "true" }, " ✓"))))));
  }

  function reward() {
    const { components, total } = data.left.reward;
    if (!components.length) return null;
    const size = Math.max(...components.map((c) => Math.abs(c.value * c.weight)), 1e-9);
    return h("section", {}, h("h2", {}, "Reward"),
      h("div", { class: "scroll" }, h("table", { class: "tight" },
        h("thead", {}, h("tr", {}, ["Part", "Value", "Weight", "Gives", ""].map((t, i) => h("th", { scope: "col", class: i && i < 4 ? "n" : undefined }, t)))),
        h("tbody", {}, components.map((c) => h("tr", {}, h("th", { scope: "row" }, short(c.name, 40)), h("td", { class: "n" }, fixed(c.value)), h("td", { class: "n" }, fixed(c.weight)), h("td", { class: "n" }, fixed(c.value * c.weight)),
          h("td", {}, h("meter", { min: 0, max: size, value: Math.max(0, c.value * c.weight), "aria-label": `${short(c.name, 40)} gives ${value(c.value * c.weight)}` }))))),
        h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "Total"), h("td", {}), h("td", {}), h("td", { class: "n" }, h("b", {}, fixed(total))), h("td", {}))))));
  }

  function patches() {
    return h("section", {}, h("h2", {}, "What it changed"),
      h("div", { class: "sides" },
        h("div", {}, h("h3", {}, "This episode"), patch(data.left.patch, "Patch of this episode", { more: textOf("patch"), theirs: data.reference && "lines are as in the reference" })),
        data.reference
          ? h("div", {}, h("h3", {}, "Reference"), patch(data.reference, "Reference patch", { more: textOf("reference"), theirs: "lines were found" }))
          : h("p", { class: "empty" }, "The task's file is not in the run's folder, so its reference is not known.")),
      data.reference && h("p", { class: "quiet small" }, "An edge on the left marks a changed line that both patches have."));
  }

  function turns() {
    const { turns: list, turns_left_out } = data.left;
    const legend = h("p", { class: "legend", hidden: true });
    const articles = list.map((turn, i) => article(turn, i));
    const choice = picker(colour, (picked) => { choose(picked); articles.forEach((one) => one.paint()); drawLegend(legend, colour, versions()); });
    drawLegend(legend, colour, versions());
    const section = h("section", {},
      h("div", { class: "title" }, h("h2", {}, "Turn by turn"), choice), legend,
      articles.map((one) => one.root),
      turns_left_out > 0 && h("p", { class: "note" }, `${count(turns_left_out)} turns more are not shown.`));
    articles.forEach((one) => one.paint());
    return section;
  }

  /** Keeps how tokens are coloured, for the next episode too. */
  function choose(picked) {
    colour = picked;
    at.keep({ colour });
  }

  const versions = () => [...new Set(data.left.adapters.map((a) => a.version))].sort((a, b) => a - b);

  function article(turn, i) {
    const words = h("div", {});
    const plain = block(turn.text, `Turn ${i + 1}, what the policy wrote`, textOf("turn", { turn: i }), "said");
    let told = null;
    async function paint() {
      if (!colour) return fill(words, plain);
      try {
        told ??= at.api(`episodes/${id}/tokens${query({ turn: i })}`);
        const pieces = await told;
        if (!colour) return fill(words, plain);
        fill(words, tokens(pieces, colour, versions()));
      } catch (error) {
        told = null;
        if (error.name !== "AbortError") fill(words, plain, h("p", { class: "quiet small" }, `Tokens cannot be shown: ${error.message}`));
      }
    }
    const mean = turn.logprob === null ? "" : `, mean log-probability ${value(turn.logprob)}`;
    const root = h("article", { class: "turn", "data-row": true, tabindex: "-1", "aria-labelledby": `turn-${i}` },
      h("h3", { id: `turn-${i}` }, `Turn ${i + 1}`, h("span", { class: "quiet" }, ` ${count(turn.tokens)} tokens${mean}`)),
      words, turn.calls.map((call, c) => tool(call, i, c)),
      turn.calls_left_out > 0 && h("p", { class: "note" }, `${count(turn.calls_left_out)} calls more are not shown.`));
    return { root, paint };
  }

  function tool(call, turn, c) {
    return callBox(call, {
      word: call.ok ? "worked" : "failed", tone: call.ok ? "good" : "warn", open: turn < TURNS_OPEN,
      more: (of) => textOf(of, { turn, call: c }),
    });
  }

  /** Follows one that is under way, where a cluster is looked at. */
  function follow() {
    const link = at.pulse()?.link.state;
    if (link === "off" && live?.is_closed) again = true;
    if (!link || link === "off" || !data || data.left || !UNDER_WAY.includes(data.row.state)) return;
    if (live && !(live.is_closed && again)) return;
    again = false;
    const tokensOf = (turn) => at.api(`episodes/${id}/tokens${query({ turn })}`);
    live = new UnderWay({ run: at.run, episode: id, textOf, tokensOf, colour: () => colour, choose, signal: at.signal, over: load });
    fill(place, live.root);
  }

  load();
  return {
    pulse: follow,
    back: () => { location.hash = at.href("rollouts"); },
    page: (by) => {
      const to = by > 0 ? data?.after : data?.before;
      if (to !== null && to !== undefined) location.hash = at.href("episode", [to], { colour });
    },
    changed: () => { if (data && !data.left && (!live || live.is_closed)) load(); },
  };
}
