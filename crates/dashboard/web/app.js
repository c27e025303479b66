// What is shown: which run, which view, and whether it is up to date.

import { api, Pulses, query } from "/link.js";
import { h, fill, keyed, mark, say } from "/dom.js";
import { count, duration } from "/format.js";
import { short } from "/text.js";
import { listen } from "/keys.js";
import * as overview from "/views/overview.js";
import * as actors from "/views/actors.js";
import * as curves from "/views/curves.js";
import * as rollouts from "/views/rollouts.js";
import * as episode from "/views/episode.js";
import * as faults from "/views/faults.js";
import * as compare from "/views/compare.js";

const VIEWS = { overview, actors, curves, rollouts, episode, faults, compare };
const TABS = [
  ["overview", "Overview"],
  ["actors", "Actors"],
  ["curves", "Curves"],
  ["rollouts", "Rollouts"],
  ["faults", "Faults"],
  ["compare", "Compare"],
];

const at = (id) => document.getElementById(id);
const main = at("main");
const app = { runs: [], run: 0, pulse: null, revision: null, view: null, summary: null };

// The token is in the cookie by now; it need not be in the address bar and in the history.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

/** `#/0/rollouts/17?node=x` as run, view, rest and values. */
function place() {
  const [path, values = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [run, view, ...rest] = path.split("/").map(decodeURIComponent);
  return {
    run: Math.min(Math.max(0, Number.parseInt(run, 10) || 0), Math.max(0, app.runs.length - 1)),
    view: VIEWS[view] ? view : "overview",
    rest,
    values: Object.fromEntries(new URLSearchParams(values)),
  };
}

/** The address of a view. */
function href(view, rest = [], values = {}, run = app.run) {
  return `#/${[run, view, ...rest].map(encodeURIComponent).join("/")}${query(values)}`;
}

function tabs() {
  return TABS.filter(([view]) => view !== "compare" || app.runs.length > 1);
}

function drawTabs(view) {
  const shown = view === "episode" ? "rollouts" : view;
  keyed(at("tabs"), tabs(), ([name]) => name,
    ([name, title]) => h("li", {}, h("a", { href: href(name) }, title)),
    (item, [name]) => {
      const link = item.firstElementChild;
      link.setAttribute("href", href(name));
      if (name === shown) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView?.({ block: "nearest", inline: "nearest" });
      } else link.removeAttribute("aria-current");
    });
}

/** Opens what the address says. */
function route() {
  const target = place();
  if (target.run !== app.run || !app.started) {
    app.run = target.run;
    app.started = true;
    app.pulse = null;
    app.summary = null;
    app.revision = null;
    pulses.follow(app.run);
    loadSummary();
  }
  drawTabs(target.view);
  at("run").value = String(app.run);
  say(at("name"), short(app.runs[app.run]?.name ?? "", 60));
  const same = app.view && app.view.name === target.view && app.view.run === app.run
    && String(app.view.rest) === String(target.rest);
  if (same && app.view.values) {
    app.view.values(target.values);
    return;
  }
  app.view?.abort.abort();
  const abort = new AbortController();
  const context = {
    run: app.run,
    runs: app.runs,
    rest: target.rest,
    values: target.values,
    signal: abort.signal,
    href,
    pulse: () => app.pulse,
    summary: () => app.summary,
    api: (path) => api(`runs/${app.run}/${path}`, abort.signal),
    apiOf: (run, path) => api(`runs/${run}/${path}`, abort.signal),
    apiAll: (path) => api(path, abort.signal),
    /** Keeps choices in the address, without a new entry in the history. */
    keep: (values) => history.replaceState(null, "", href(target.view, target.rest, values)),
    trouble,
  };
  trouble(null);
  fill(main);
  const view = VIEWS[target.view].mount(main, context);
  app.view = { name: target.view, run: app.run, rest: target.rest, abort, ...view };
  const title = TABS.find(([name]) => name === target.view)?.[1] ?? `Episode ${target.rest[0] ?? ""}`;
  document.title = `${title} · ${app.runs[app.run]?.name ?? "run"} · crrl`;
  main.scrollTop = 0;
  window.scrollTo(0, 0);
  if (app.summary) app.view.summary?.(app.summary, null);
  if (app.pulse) app.view.pulse?.(app.pulse);
}

/** Says what is wrong, or that nothing is. */
function trouble(text) {
  const element = at("trouble");
  element.hidden = !text;
  say(element, text ?? "");
}

async function loadSummary() {
  const run = app.run;
  try {
    const summary = await api(`runs/${run}`);
    if (run !== app.run) return;
    app.summary = summary;
    app.problem = null;
  } catch (error) {
    if (run !== app.run) return;
    app.problem = error.message;
  }
  drawState();
  app.view?.summary?.(app.summary, app.problem);
}

let connection = { state: "connecting" };

/** The state of the run, in words that change when the state does. */
function stateOf() {
  if (connection.state === "waiting") return ["lost", "no connection to the dashboard"];
  const { pulse, summary } = app;
  const link = pulse?.link.state;
  if (link === "live") {
    const phase = pulse.progress?.phase || "starting";
    return [pulse.healthy ? "live" : "warn", phase.replace(/ \(.*\)$/, "")];
  }
  if (link === "lost") return ["lost", "the cluster does not answer"];
  if (link === "connecting" && !summary) return ["idle", "waiting for the cluster"];
  const state = summary?.summary.state;
  if (state === "complete") return ["done", "complete"];
  if (state?.ended_early !== undefined) return ["lost", "ended early"];
  if (link === "connecting") return ["idle", "waiting for the cluster"];
  if (state === "not_over") return ["idle", "not running, not over"];
  return ["idle", app.problem ? "cannot be read" : "reading"];
}

function drawState() {
  const [kind, word] = stateOf();
  const element = at("state");
  if (!element.firstElementChild) {
    element.append(h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "word" }),
      h("span", { class: "detail", "aria-live": "off" }));
  }
  element.dataset.kind = kind;
  say(element.children[1], word);
  const progress = app.pulse?.progress;
  let detail = "";
  if (connection.state === "waiting") detail = `next try in ${connection.left} s`;
  else if (app.pulse?.link.state === "live" && progress) {
    detail = `step ${count(progress.step)} of ${count(progress.steps)}`;
  } else if (app.pulse?.link.state === "lost") {
    detail = `for ${duration(app.pulse.at_ms - app.pulse.link.since_ms)}`;
  } else if (app.summary) {
    detail = `step ${count(app.summary.summary.steps)} of ${count(app.summary.summary.steps_planned)}`;
  }
  say(element.children[2], detail);
  mark(document.body, "stale", connection.state === "waiting");
}

const pulses = new Pulses(
  (pulse) => {
    app.pulse = pulse;
    drawState();
    app.view?.pulse?.(pulse);
    if (app.revision !== pulse.revision) {
      const first = app.revision === null;
      app.revision = pulse.revision;
      if (!first) {
        loadSummary();
        app.view?.changed?.();
      }
    }
  },
  (state) => {
    connection = state;
    drawState();
  },
);

listen({
  go: (n) => { const tab = tabs()[n]; if (tab) location.hash = href(tab[0]); },
  back: () => app.view?.back?.(),
  page: (by) => app.view?.page?.(by),
  help: () => at("help").showModal(),
});
at("help-button").addEventListener("click", () => at("help").showModal());
at("run").addEventListener("change", (event) => {
  const { view, rest } = place();
  location.hash = href(view === "episode" ? "rollouts" : view, view === "episode" ? [] : rest, {}, event.target.value);
});
at("state").addEventListener("click", () => pulses.now());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

async function start() {
  try {
    const { runs } = await api("runs");
    app.runs = runs;
  } catch (error) {
    trouble(error.message);
    setTimeout(start, 3000);
    return;
  }
  const several = app.runs.length > 1;
  const select = at("run");
  fill(select, app.runs.map((run) => h("option", { value: run.run }, short(run.name, 60))));
  select.hidden = !several;
  select.previousElementSibling.hidden = !several;
  at("name").hidden = several;
  window.addEventListener("hashchange", route);
  route();
}

start();
