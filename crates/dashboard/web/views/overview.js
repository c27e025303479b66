// How the run is: its state, its cluster, what is wrong, what it came to.

import { h, fill, keyed, say } from "/dom.js";
import { bytes, clock, cores, count, duration, fixed, gpu, gpus, interval, percent, roundTrip, skew, utc, value } from "/format.js";
import { block, short, visible } from "/text.js";
import { badge, Table } from "/table.js";
import { ClusterMap, nodesOf } from "/map.js";
import { Chart, Cursor } from "/chart.js";

// A clock that is further from the coordinator's stands out, milliseconds.
const FAR_MS = 1000;
// With more nodes than this their measurements are folded at first.
const UNFOLDED_MAX = 12;

export function mount(root, at) {
  const facts = h("dl", { class: "facts" });
  const findings = h("section", { class: "panel findings", "aria-labelledby": "wrong" });
  const map = new ClusterMap();
  const vitals = new Table({
    caption: "What nodes measure", key: (node) => node.name, tone: (node) => (Math.abs(node.clock_skew_ms ?? 0) > FAR_MS ? "warn" : ""), columns: [
      { title: "Node", cell: (node) => short(node.name, 40) },
      { title: "CPU", n: true, hint: "CPU time of its process over the last second, of one core: 250 % is two cores and a half", cell: (node) => cores(node.cpu_percent) },
      { title: "Memory", n: true, hint: "Resident memory of its process", cell: (node) => bytes(node.rss_bytes) },
      { title: "GPU", hint: "Share of time busy, memory in use and there, as the driver has them", cell: (node, cell) => {
        cell.title = (node.gpus ?? []).map((one) => short(gpu(one), 120)).join("\n");
        return short(gpus(node.gpus), 120);
      } },
      { title: "Round trip, p50 / p99", n: true, hint: "Packets to the coordinator and back, over the last two minutes", cell: (node) => roundTrip(node.rtt_p50_ms, node.rtt_p99_ms) },
      { title: "Clock", n: true, hint: "How far its clock is ahead of the coordinator's; right to half a round trip", cell: (node) => skew(node.clock_skew_ms) },
      { title: "Build", cell: (node) => (node.build ? short(node.build, 40) : "–") },
    ],
  });
  const measures = h("details", { class: "vitals", hidden: true }, h("summary", {}, "What nodes measure"), vitals.root);
  const cursor = new Cursor();
  const charts = [new Chart(cursor), new Chart(cursor)];
  const curves = h("div", { class: "charts" }, charts.map((chart) => chart.root));
  const measured = h("section", {});
  const events = h("ol", { class: "events" });
  const about = h("section", {});
  const problem = h("p", { class: "note", hidden: true });
  fill(root,
    h("h1", { class: "hidden" }, "Overview"), problem, facts, findings,
    h("section", { "aria-labelledby": "map" }, h("h2", { id: "map" }, "Cluster"), map.root, measures),
    h("section", { "aria-labelledby": "learns" },
      h("div", { class: "title" }, h("h2", { id: "learns" }, "Does it learn?"), h("a", { href: at.href("curves") }, "All curves")), curves),
    measured,
    h("section", { "aria-labelledby": "events" },
      h("div", { class: "title" }, h("h2", { id: "events" }, "Last events"), h("a", { href: at.href("faults") }, "Faults and history")), events),
    about);
  curves.hidden = true;

  async function load() {
    try {
      const data = await at.api("curves");
      const [reward, success] = ["reward", "success"].map((id) => data.charts.find((chart) => chart.id === id));
      curves.hidden = !reward;
      if (reward) charts[0].draw({ ...reward, about: "" }, { kind: "step", of: (x) => x });
      if (success) charts[1].draw({ ...success, about: "" }, { kind: "step", of: (x) => x });
      charts[1].root.hidden = !success;
    } catch (error) {
      if (error.name !== "AbortError") curves.hidden = true;
    }
  }
  load();

  function drawFacts(pulse, summary) {
    const sum = summary?.summary;
    const live = pulse?.link.state === "live" || pulse?.link.state === "lost" ? pulse.progress : null;
    const step = live?.step ?? sum?.steps;
    const steps = live?.steps ?? sum?.steps_planned;
    const episodes = live?.episodes;
    const rows = [];
    rows.push(["Optimizer steps", step === undefined ? "–" : count(step), steps ? `of ${count(steps)}` : "", steps ? step / steps : null]);
    rows.push(["Adapter", live ? `v${live.adapter_version}` : sum?.adapter_version == null ? "–" : `v${sum.adapter_version}`, live ? `${short(live.phase || "starting", 40)}, for ${duration(live.phase_ms)}` : ""]);
    if (episodes) {
      rows.push(["Episodes back", count(episodes.finished), `${count(episodes.in_flight)} out, ${count(episodes.failed)} failed`]);
      rows.push(["Trained on", count(episodes.trained), `${count(episodes.dropped)} dropped`]);
    } else if (sum) {
      const by = sum.episodes;
      const all = Object.values(by).reduce((a, b) => a + b, 0) - (by.queued ?? 0);
      rows.push(["Episodes", count(all), `${count(by.measured ?? 0)} measured, ${count(by.failed ?? 0)} failed`]);
      rows.push(["Trained on", count(by.trained ?? 0), `${count(by.dropped ?? 0)} dropped`]);
    }
    const last = sum?.compared?.[0];
    if (last) {
      const reward = last.comparison.rows[0];
      rows.push([`Change of ${reward.name}`, `${reward.change.value >= 0 ? "+" : ""}${fixed(reward.change.value)}`, `95 % [${fixed(reward.change.low)}, ${fixed(reward.change.high)}]`]);
    }
    if (sum?.wall_ms != null) rows.push(["Wall time", duration(sum.wall_ms), sum.began_ms ? `since ${utc(sum.began_ms).slice(5, 16)} UTC` : ""]);
    keyed(facts, rows, (row, i) => row[0],
      (row) => h("div", {}, h("dt", {}, row[0]), h("dd", {}, h("b", {}), h("span", { class: "quiet" }), row[3] !== undefined && h("progress", { max: 1, "aria-label": row[0] }))),
      (element, row) => {
        const dd = element.lastElementChild;
        say(dd.children[0], row[1]);
        say(dd.children[1], row[2]);
        if (dd.children[2]) {
          dd.children[2].hidden = row[3] === null || row[3] === undefined;
          dd.children[2].value = row[3] ?? 0;
        }
      });
  }

  function drawFindings(pulse, summary) {
    const ended = summary?.summary.state?.ended_early;
    const told = pulse?.findings ?? [];
    const silent = pulse?.link.state === "lost" || pulse?.link.state === "connecting" ? pulse.link.reason : null;
    const list = [...told.map((f) => ({ rule: f.rule, says: f.says }))];
    if (silent && !list.some((f) => f.rule === "no-answer")) list.unshift({ rule: "no-answer", says: silent });
    if (ended) list.unshift({ rule: "run-failed", says: ended });
    findings.hidden = !list.length && pulse?.link.state !== "live";
    const key = JSON.stringify(list.map((f) => f.says.replace(/\d+/g, "")));
    if (findings.key === key && list.length) {
      [...findings.querySelectorAll("li")].forEach((item, i) => say(item.lastElementChild, short(list[i].says, 400)));
      return;
    }
    findings.key = key;
    findings.dataset.tone = list.length ? "warn" : "good";
    fill(findings, h("h2", { id: "wrong" }, list.length ? "What is wrong" : "Nothing is wrong"),
      list.length > 0 && h("ul", {}, list.map((f) => h("li", {}, badge(f.rule.replaceAll("-", " "), "warn"), h("span", {}, short(f.says, 400))))));
  }

  function drawEvents(pulse) {
    keyed(events, pulse?.events ?? [], (event) => `${event.at_ms} ${event.event} ${event.node} ${event.detail}`,
      (event) => h("li", { "data-tone": event.weight === "trouble" ? "bad" : "" },
        h("time", { datetime: new Date(event.at_ms).toISOString(), title: utc(event.at_ms) }, clock(event.at_ms)),
        h("b", {}, event.event), h("span", {}, short(event.node, 40)), h("span", { class: "quiet" }, short(event.detail, 160))));
  }

  function drawVitals(pulse) {
    const nodes = pulse?.nodes ?? [];
    if (measures.hidden && nodes.length) measures.open = nodes.length <= UNFOLDED_MAX;
    measures.hidden = !nodes.length;
    vitals.set(nodes);
  }

  function drawMeasured(summary) {
    const sum = summary.summary;
    const rows = sum.evaluations;
    fill(measured);
    if (rows.length) {
      const table = new Table({
        caption: "Evaluations", key: (row) => row.label, columns: [
          { title: "Evaluation", cell: (row) => short(row.label, 40) },
          { title: "Adapter", n: true, cell: (row) => `v${row.version}` },
          { title: "Reward, 95 %", n: true, cell: (row) => interval(row.reward) },
          { title: "Repaired, 95 %", n: true, cell: (row) => interval(row.success, percent) },
          { title: "Any attempt", n: true, cell: (row) => percent(row.success_any) },
          { title: "Tasks × attempts", n: true, cell: (row) => `${count(row.tasks)} × ${count(Math.round(row.attempts / Math.max(1, row.tasks)))}` },
          { title: "Temperature", n: true, cell: (row) => row.temperature === null ? "–" : String(row.temperature) },
        ],
      });
      table.set(rows);
      measured.append(h("h2", {}, "Measured on held-out tasks"), table.root);
    }
    for (const { before, after, comparison } of sum.compared) {
      const table = new Table({
        caption: `${before} against ${after}`, key: (row) => row.name, columns: [
          { title: "", cell: (row) => row.name },
          { title: short(before, 20), n: true, cell: (row) => interval(row.before) },
          { title: short(after, 20), n: true, cell: (row) => interval(row.after) },
          { title: "Change, 95 %", n: true, cell: (row) => interval(row.change) },
          { title: "p", n: true, cell: (row) => row.p < 1e-4 ? "< 0.0001" : row.p.toFixed(4) },
          { title: "Cohen's d", n: true, cell: (row) => value(row.cohens_d) },
        ],
      });
      table.set(comparison.rows);
      measured.append(h("h3", {}, `“${short(before, 30)}” against “${short(after, 30)}”, ${count(comparison.n)} tasks`), table.root);
    }
  }

  function drawAbout(summary) {
    fill(about, h("h2", {}, "The run"),
      h("dl", { class: "pairs" },
        h("div", {}, h("dt", {}, "Folder"), h("dd", {}, h("code", {}, short(summary.folder, 200)))),
        h("div", {}, h("dt", {}, "Seed"), h("dd", {}, String(summary.seed))),
        h("div", {}, h("dt", {}, "Plan"), h("dd", {}, h("ol", {}, summary.phases.map((phase) => h("li", {}, h("b", {}, short(phase.label, 60)), ` ${short(phase.tasks, 60)}: ${short(phase.extent, 200)}`))))),
        summary.quarantined.length > 0 && h("div", {}, h("dt", {}, "In quarantine"), h("dd", {}, summary.quarantined.map(([task, why]) => h("p", {}, h("b", {}, short(task, 80)), ` ${short(why, 200)}`)))),
        summary.notes.length > 0 && h("div", {}, h("dt", {}, "Notes"), h("dd", {}, summary.notes.map((note) => h("p", {}, visible(note)))))),
      summary.configuration && h("details", {}, h("summary", {}, "Configuration"),
        block({ text: summary.configuration, bytes: summary.configuration.length }, "cluster.toml", () => "")));
  }

  function draw(pulse, summary) {
    drawFacts(pulse, summary);
    drawFindings(pulse, summary);
    map.set(nodesOf(pulse, summary));
    drawVitals(pulse);
    drawEvents(pulse);
  }

  return {
    pulse: (pulse) => draw(pulse, at.summary()),
    changed: load,
    summary: (summary, why) => {
      problem.hidden = !why;
      say(problem, why ? `The run's files cannot be read: ${why}` : "");
      if (summary) {
        drawMeasured(summary);
        drawAbout(summary);
      }
      draw(at.pulse(), summary);
    },
  };
}
