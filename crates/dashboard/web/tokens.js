// Tokens of a turn, coloured by the probability they were drawn with or by the adapter that drew them.

import { h, fill } from "/dom.js";
import { count } from "/format.js";
import { short, visible } from "/text.js";

// Natural logarithms of probability: below 1 in 150, 1 in 20, 1 in 5, 2 in 3.
const SURE = [-5, -3, -1.6, -0.4];
const LEGEND = ["under 1 %", "under 5 %", "under 20 %", "under 67 %", "surer"];
const COLOURS = [["", "as text"], ["logprob", "by probability"], ["version", "by adapter version"]];

/** What a person chooses the colours with; `picked(colour)` hears of it. */
export function picker(colour, picked) {
  const pick = h("select", { id: "colour" }, COLOURS.map(([value, title]) => h("option", { value, selected: value === colour }, title)));
  pick.addEventListener("change", () => picked(pick.value));
  return h("div", { class: "inline" }, h("label", { for: "colour" }, "Show tokens"), pick);
}

/** Says what the colours mean; `versions` are those of the episode's adapters, in the order of their colours. */
export function drawLegend(legend, colour, versions) {
  legend.hidden = !colour;
  if (colour === "logprob") fill(legend, "Probability the token was drawn with: ", LEGEND.map((t, i) => h("span", { class: `token p${i}` }, t)));
  else if (colour === "version") fill(legend, "Adapter: ", versions.map((v, i) => h("span", { class: `token v${i % 8}` }, `v${v}`)));
}

/** The tokens of a turn. */
export function tokens({ pieces, left_out, note }, colour, versions) {
  const pre = h("pre", { class: "text said tokens", dir: "ltr", tabindex: "0", role: "group", "aria-label": "Tokens" });
  for (const piece of pieces) {
    if (!piece.text && !note) continue;
    const p = piece.logprob === null ? null : SURE.findIndex((bound) => piece.logprob < bound);
    const tone = colour === "logprob" ? (p === null ? "px" : `p${p < 0 ? SURE.length : p}`) : `v${Math.max(0, versions.indexOf(piece.version)) % 8}`;
    const hint = `token ${piece.id}, ${piece.logprob === null ? "probability not known" : `probability ${(100 * Math.exp(piece.logprob)).toFixed(1)} %`}, v${piece.version ?? "?"}`;
    const span = h("span", { class: `token ${tone}`, title: hint });
    if (note) span.append(`${piece.id} `);
    else span.append(visible(piece.text));
    pre.append(span);
  }
  return h("div", {}, pre, note && h("p", { class: "quiet small" }, short(note, 300)), left_out > 0 && h("p", { class: "note" }, `${count(left_out)} tokens more are not shown.`));
}
