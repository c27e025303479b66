// A call of a tool: what it was given, what it answered, what became of it.

import { h } from "/dom.js";
import { duration } from "/format.js";
import { block, short } from "/text.js";
import { badge } from "/table.js";

/**
 * A call as an element that opens. `word` and `tone` say what became of it, `more(of)` gives the addresses
 * of the rest of its `arguments` and its `output`.
 */
export function callBox(call, { word, tone, open, more }) {
  const name = call.name ? short(call.name, 48) : "a call that could not be read";
  const took = call.wall_ms === null || call.wall_ms === undefined ? null : h("span", { class: "quiet" }, duration(call.wall_ms));
  return h("details", { class: "call", open },
    h("summary", {}, h("b", {}, name), badge(word, tone), took),
    call.arguments.text && h("div", {}, h("h4", {}, "Arguments"), block(pretty(call.arguments), `Arguments of ${name}`, more("arguments"), "code")),
    call.output && h("div", {}, h("h4", {}, "Output"), block(call.output, `Output of ${name}`, more("output"), "code")));
}

/** A shell command as it was meant: `{"cmd": "ls"}` reads as `ls`. */
function pretty(excerpt) {
  if (excerpt.next !== undefined) return excerpt;
  try {
    const values = JSON.parse(excerpt.text);
    if (!values || typeof values !== "object" || Array.isArray(values)) return excerpt;
    const lines = Object.entries(values).map(([k, v]) => {
      const text = typeof v === "string" ? v : JSON.stringify(v);
      return text.includes("\n") ? `${k}:\n${text.replace(/^/gm, "    ")}` : `${k}: ${text}`;
    });
    return { ...excerpt, text: lines.join("\n") };
  } catch {
    return excerpt;
  }
}
