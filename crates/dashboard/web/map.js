// The cluster, drawn: a card a node, in the order of the work, and lines along which it goes.

import { h, s, fill, keyed, say } from "/dom.js";
import { bytes, count, duration, rate } from "/format.js";
import { short } from "/text.js";
import { badge } from "/table.js";

const TONES = { ready: "good", starting: "idle", silent: "silent", draining: "idle", suspended: "idle", left: "idle", lost: "bad", restarting: "warn", "given-up": "bad", ended: "idle" };
const WORDS = { "given-up": "given up", "ended": "ended" };

/** Which column a node stands in: the work goes from left to right and back. */
function zone(node) {
  const roles = node.roles.split("+");
  if (["coordinator", "params", "parameter-server"].some((role) => roles.includes(role))) return "control";
  return roles.includes("learner") ? "learner" : "rollouts";
}

/** The tone and the word of a node's state. */
export function standing(node) {
  if (node.stale) return ["silent for long", "bad"];
  return [WORDS[node.state] ?? node.state, TONES[node.state] ?? "idle"];
}

/** Nodes as a pulse has them, or as the host of a run that is over left them. */
export function nodesOf(pulse, summary) {
  const faults = pulse?.faults ?? [];
  if (pulse?.nodes?.length) {
    const newest = pulse.progress?.adapter_version ?? 0;
    // Those of which the inspector says so have been silent for longer than a start takes.
    const unheard = new Set((pulse.findings ?? []).filter((f) => f.rule === "node-silent").map((f) => f.node));
    return pulse.nodes.map((node) => ({
      ...node,
      activity: node.state === "silent" ? `nothing has been heard of it, for ${duration(node.activity_ms)}` : node.activity,
      stale: (node.state === "silent" && unheard.has(node.name)) || node.age_ms > 5000 && !["lost", "left", "restarting", "given-up"].includes(node.state),
      behind: node.adapter === null || node.adapter === undefined ? null : Math.max(0, newest - node.adapter),
      faults: faults.filter((fault) => fault.node === node.name && fault.active).length,
    }));
  }
  return (summary?.nodes ?? []).map((node) => ({
    name: node.name,
    roles: node.roles.join("+").replace("parameter-server", "params"),
    state: node.given_up ? "given-up" : "ended",
    restarts: node.restarts,
    last_exit: node.last_exit,
    activity: node.last_exit ? `ended last: ${node.last_exit}` : "",
    faults: 0,
  }));
}

export class ClusterMap {
  constructor() {
    this.lines = s("svg", { class: "wires", "aria-hidden": "true" });
    const column = (title) => {
      const list = h("ul", {});
      return { list, root: h("div", { class: "zone" }, h("h3", {}, title), list) };
    };
    this.zones = { rollouts: column("Rollouts"), control: column("Coordination"), learner: column("Learning") };
    this.root = h("div", { class: "map" }, this.lines, Object.values(this.zones).map((zone) => zone.root));
    new ResizeObserver(() => this.#wire()).observe(this.root);
  }

  set(nodes) {
    this.nodes = nodes;
    for (const [name, { list, root }] of Object.entries(this.zones)) {
      const here = nodes.filter((node) => zone(node) === name);
      root.hidden = !here.length;
      root.classList.toggle("many", here.length > 6);
      keyed(list, here, (node) => node.name, card, update);
    }
    this.#wire();
  }

  #wire() {
    const box = this.root.getBoundingClientRect();
    if (!box.width) return;
    const places = Object.fromEntries(Object.entries(this.zones).map(([name, { list }]) =>
      [name, [...list.children].map((card) => ({ tone: card.dataset.tone, box: card.getBoundingClientRect() }))]));
    const centre = places.control[0]?.box;
    this.lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    this.lines.setAttribute("width", box.width);
    this.lines.setAttribute("height", box.height);
    if (!centre) return fill(this.lines);
    const wire = ({ box: other, tone }) => {
      const left = other.right <= centre.left;
      const right = other.left >= centre.right;
      // Cards below each other need no line: their order says as much.
      if (!left && !right) return null;
      const [x0, y0, x1, y1] = left ? [other.right, other.top + 22, centre.left, centre.top + 22]
        : [centre.right, centre.top + 22, other.left, other.top + 22];
      const [a, b, c, d] = [x0 - box.left, y0 - box.top, x1 - box.left, y1 - box.top];
      return s("path", { class: "wire", "data-tone": tone, d: `M${a} ${b}C${(a + c) / 2} ${b} ${(a + c) / 2} ${d} ${c} ${d}` });
    };
    fill(this.lines, [...places.rollouts, ...places.learner].map(wire));
  }
}

function card() {
  return h("li", { class: "node" },
    h("div", { class: "head" }, h("b", {}), h("span", { class: "slot" })),
    h("p", { class: "role quiet" }),
    h("dl", {}, ["version", "tokens/s", "memory", "episodes"].map((name) => h("div", {}, h("dt", {}, name), h("dd", {})))),
    h("p", { class: "doing quiet" }));
}

function update(element, node) {
  const [word, tone] = standing(node);
  element.dataset.tone = node.faults ? "warn" : tone;
  const [head, role, facts, doing] = element.children;
  say(head.firstElementChild, short(node.name, 28));
  const faults = node.faults ? `, ${node.faults} fault${node.faults > 1 ? "s" : ""}` : "";
  if (head.lastElementChild.textContent !== word + faults) fill(head.lastElementChild, badge(word + faults, element.dataset.tone));
  const restarts = node.restarts ? ` · restarted ${node.restarts}×` : "";
  say(role, node.roles.replaceAll("+", ", ") + restarts);
  const isRollout = node.roles.includes("rollout");
  const values = [
    node.adapter === undefined || node.adapter === null ? null : `v${node.adapter}${node.behind ? ` (${node.behind} behind)` : ""}`,
    node.tokens_per_s == null || zone(node) === "control" ? null : rate(node.tokens_per_s),
    node.rss_bytes ? bytes(node.rss_bytes) : null,
    isRollout && node.episodes !== undefined && node.episodes !== null ? count(node.episodes) : null,
  ];
  [...facts.children].forEach((one, at) => {
    one.hidden = values[at] === null;
    say(one.lastElementChild, values[at] ?? "");
  });
  say(doing, short(node.activity ?? "", 110));
  doing.title = node.activity_ms > 1000 ? `for ${duration(node.activity_ms)}` : "";
}
