// An episode under way: its turns as they become durable. A line says what is new, for those who hear the
// page; the turns are read where they are.

import { h, fill, later, say } from "/dom.js";
import { count, duration, value } from "/format.js";
import { block, short } from "/text.js";
import { callBox } from "/call.js";
import { patch } from "/patch.js";
import { drawLegend, picker, tokens } from "/tokens.js";

// Turns that stay on the page; of an episode with more the first are let go of.
const TURNS_MAX = 200;
const WAIT_FIRST_S = 1;
const WAIT_MAX_S = 15;
// Scrolled up by so much, a person reads something, and is not taken to the newest turn any more.
const LET_GO_PX = 60;
const FATES = {
  waiting: ["being carried out", ""],
  refused: ["not carried out", "warn"],
  worked: ["worked", "good"],
  failed: ["failed", "warn"],
};
const STOPS = { text: ", stopped at a text", length: ", cut: it used up its tokens" };

/**
 * Follows an episode. `textOf(of, where)` gives addresses of texts, `tokensOf(turn)` the tokens of a turn; `colour()` is
 * how they are coloured and `choose(colour)` changes it; `over()` is called when it is over.
 */
export class UnderWay {
  constructor({ run, episode, textOf, tokensOf, colour, choose, over, signal }) {
    Object.assign(this, { run, episode, textOf, tokensOf, colour, over });
    this.turns = new Map();
    this.versions = [];
    // Turns are painted one after the other: each costs a look into the run's store.
    this.painted = Promise.resolve();
    this.legend = h("p", { class: "legend", hidden: true });
    const pick = picker(colour(), (picked) => {
      choose(picked);
      drawLegend(this.legend, picked, this.versions);
      for (const held of this.turns.values()) this.#paint(held);
    });
    drawLegend(this.legend, colour(), this.versions);
    this.gone = 0;
    this.wait = WAIT_FIRST_S;
    this.stay = h("input", { type: "checkbox", id: "stay", checked: true });
    this.now = h("p", { class: "quiet small now" }, "Waiting for its first turn …");
    this.says = h("p", { class: "hidden", role: "status" });
    this.problem = h("p", { class: "note", hidden: true });
    this.earlier = h("p", { class: "note", hidden: true });
    this.list = h("div", { class: "turns" });
    this.change = h("section", { hidden: true });
    this.root = h("section", { class: "following", "aria-labelledby": "following" },
      h("div", { class: "title" }, h("h2", { id: "following" }, "Turn by turn, as it goes on"), pick,
        h("div", { class: "inline" }, this.stay, h("label", { for: "stay" }, "Stay at the newest turn"))),
      this.legend, this.now, this.says, this.problem, this.earlier, this.list, this.change);
    this.announce = later(400, (text) => say(this.says, text));
    this.stay.addEventListener("change", () => this.#show());
    window.addEventListener("scroll", () => this.#scrolled(), { signal, passive: true });
    window.addEventListener("resize", () => { this.lowest = undefined; }, { signal });
    // A browser keeps six connections to one server: a page that nobody looks at gives its own back.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#shut() : this.#open()), { signal });
    signal.addEventListener("abort", () => this.close());
    this.#open();
  }

  /** Follows no longer; what is there stays. */
  close() {
    this.is_closed = true;
    this.#shut();
  }

  #shut() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  #open() {
    if (this.is_closed) return;
    this.#shut();
    const source = new EventSource(`/api/runs/${this.run}/episodes/${encodeURIComponent(this.episode)}/follow`);
    this.source = source;
    const on = (name, act) => source.addEventListener(name, (event) => {
      if (source !== this.source) return;
      this.wait = WAIT_FIRST_S;
      act(JSON.parse(event.data));
    });
    on("begin", (told) => this.#begin(told));
    on("turn", (told) => this.#turn(told));
    on("change", (told) => this.#changed(told));
    on("now", (told) => this.#state(told));
    on("trouble", (told) => this.#trouble(`It cannot be read now: ${short(told.error, 400)}`));
    on("over", () => {
      this.close();
      this.announce("The episode is over.");
      this.over();
    });
    on("gone", () => {
      this.close();
      this.#trouble("The cluster has ended. This is how far the episode came.");
    });
    source.onerror = () => source === this.source && this.#failed();
  }

  #failed() {
    this.#shut();
    this.#trouble(`It cannot be followed: the dashboard was ended, or too many episodes are followed already. Next try in ${this.wait} s.`);
    this.timer = setTimeout(() => this.#open(), this.wait * 1000);
    this.wait = Math.min(this.wait * 2, WAIT_MAX_S);
  }

  #trouble(text) {
    this.problem.hidden = !text;
    say(this.problem, text ?? "");
    if (text) this.announce(text);
  }

  #begin({ attempt }) {
    // A new connection tells everything again, and what is there stays as a person left it.
    if (this.attempt === attempt) return;
    if (this.attempt !== undefined) this.announce("The episode was begun anew.");
    this.attempt = attempt;
    this.turns.clear();
    this.gone = 0;
    this.earlier.hidden = true;
    this.change.hidden = true;
    fill(this.list);
    this.lowest = undefined;
  }

  #turn(told) {
    this.#trouble(null);
    let held = this.turns.get(told.turn);
    const is_new = !held;
    if (is_new) {
      held = this.#article(told);
      this.turns.set(told.turn, held);
      this.list.append(held.root);
      this.#paint(held);
      this.#trim();
    }
    for (const [at, call] of told.calls.entries()) this.#call(held, told.turn, at, call);
    say(held.more, told.calls_left_out > 0 ? `${count(told.calls_left_out)} calls more are not shown.` : "");
    held.more.hidden = !told.calls_left_out;
    const last = told.calls.at(-1);
    const name = last && (last.name ? short(last.name, 48) : "a call that could not be read");
    this.announce(`Turn ${told.turn + 1}${last ? `: ${name}, ${FATES[last.fate][0]}` : ""}`);
    this.#show();
  }

  #article(told) {
    const id = `turn-${told.turn}`;
    const where = { turn: told.turn };
    const mean = told.logprob === null ? "" : `, mean log-probability ${value(told.logprob)}`;
    const place = h("div", { class: "calls" });
    const more = h("p", { class: "note", hidden: true });
    const plain = block(told.text, `Turn ${told.turn + 1}, what the policy wrote`, this.textOf("turn", where), "said");
    const words = h("div", {}, plain);
    const root = h("article", { class: "turn", "data-row": true, tabindex: "-1", "aria-labelledby": id },
      h("h3", { id }, `Turn ${told.turn + 1}`, h("span", { class: "quiet" }, ` ${count(told.tokens)} tokens${mean}${STOPS[told.stop] ?? ""}`)),
      words, told.note && h("p", { class: "quiet small" }, short(told.note, 300)), place, more);
    return { turn: told.turn, root, place, more, words, plain, calls: [] };
  }

  /** Shows what was written in a turn as a person wants it: as text, or token by token. */
  #paint(held) {
    if (!this.colour()) return fill(held.words, held.plain);
    this.painted = this.painted.then(() => this.#paintTokens(held));
  }

  async #paintTokens(held) {
    if (!this.colour() || !held.root.isConnected) return;
    try {
      // What was written in a turn does not change any more.
      held.tokens ??= await this.tokensOf(held.turn);
      const news = held.tokens.pieces.map((piece) => piece.version).filter((v) => v !== null && !this.versions.includes(v));
      if (news.length) {
        this.versions = [...new Set([...this.versions, ...news])];
        drawLegend(this.legend, this.colour(), this.versions);
      }
      if (this.colour()) fill(held.words, tokens(held.tokens, this.colour(), this.versions));
    } catch (error) {
      if (error.name !== "AbortError") fill(held.words, held.plain, h("p", { class: "quiet small" }, `Tokens cannot be shown: ${short(error.message, 300)}`));
    }
    this.#show();
  }

  #call(held, turn, at, call) {
    const key = JSON.stringify(call);
    const had = held.calls[at];
    if (had?.key === key) return;
    const [word, tone] = FATES[call.fate];
    const more = (of) => this.textOf(of, { turn, call: at });
    const element = callBox(call, { word, tone, open: had ? had.element.open : true, more });
    if (had) {
      const is_focused = had.element.contains(document.activeElement);
      had.element.replaceWith(element);
      if (is_focused) element.querySelector("summary").focus({ preventScroll: true });
    } else held.place.append(element);
    held.calls[at] = { key, element };
  }

  #trim() {
    while (this.turns.size > TURNS_MAX) {
      const [first, held] = this.turns.entries().next().value;
      held.root.remove();
      this.turns.delete(first);
      this.gone = first + 1;
    }
    this.earlier.hidden = !this.gone;
    say(this.earlier, this.gone ? `The first ${count(this.gone)} turns are not kept on this page; they are shown when the episode is over.` : "");
  }

  #changed(told) {
    this.change.hidden = false;
    fill(this.change, h("h2", {}, "What it changed"), patch(told, "Patch of this episode so far", { more: this.textOf("patch"), theirs: null }));
    this.#show();
  }

  #state({ state, live }) {
    this.#trouble(null);
    if (!live) {
      return say(this.now, state === "queued" ? "It waits to be handed out again." : "No node tells of it at the moment.");
    }
    const behind = live.behind ? ` (${count(live.behind)} behind)` : "";
    say(this.now, `${short(live.doing, 120)}, for ${duration(live.idle_ms)}. ${count(live.turns)} turns, ${count(live.calls)} calls, ${duration(live.age_ms)} in all, adapter v${live.version}${behind}, in ${short(live.node, 40)}${live.stale ? ", which says nothing at the moment" : ""}`);
  }

  /** Takes the person to the newest turn, unless they went elsewhere. */
  #show() {
    if (!this.stay.checked || !this.root.isConnected) return;
    const end = this.change.hidden ? this.list.lastElementChild : this.change;
    end?.scrollIntoView({ block: "end", behavior: "instant" });
    this.lowest = window.scrollY;
  }

  #scrolled() {
    if (this.lowest !== undefined && window.scrollY < this.lowest - LET_GO_PX) this.stay.checked = false;
    else this.lowest = Math.max(this.lowest ?? 0, window.scrollY);
  }
}
