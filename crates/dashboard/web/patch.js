// A patch, drawn: numbers of both sides, signs, colours, what changed within a line, and which changes
// the reference makes too.

import { h } from "/dom.js";
import { count } from "/format.js";
import { block, short, visible } from "/text.js";

const SIGNS = { added: "+", removed: "−", same: " " };

/** A patch as a table. `more(from)` is the address of its text. */
export function patch(data, label, { more, theirs }) {
  if (!data || !data.bytes) return h("p", { class: "empty" }, "Nothing is changed.");
  const rows = data.lines.map((line) => {
    if (line.kind === "file") return h("tr", { class: "file" }, h("th", { colspan: 4, scope: "rowgroup" }, short(line.text, 120)));
    if (line.kind === "hunk" || line.kind === "about") {
      return h("tr", { class: line.kind }, h("td", { colspan: 4 }, visible(line.text)));
    }
    const sign = SIGNS[line.kind];
    const code = h("td", { class: "code", dir: "ltr" });
    code.append(marked(line));
    if (line.cut) code.append(h("span", { class: "quiet" }, ` … ${count(line.cut)} characters more`));
    return h("tr", { class: `${line.kind}${line.shared ? " shared" : ""}` },
      h("td", { class: "no" }, line.old ?? ""), h("td", { class: "no" }, line.new ?? ""),
      h("td", { class: "sign" }, sign, line.kind !== "same" && h("span", { class: "hidden" }, line.kind)),
      code);
  });
  const table = h("div", { class: "scroll diff", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("caption", { class: "hidden" }, label), h("tbody", {}, rows)));
  const changed = data.added + data.removed;
  const told = `${count(data.added)} added, ${count(data.removed)} removed`;
  const shared = theirs && changed ? `; ${count(data.shared)} of ${count(changed)} ${theirs}` : "";
  const cut = data.left_out || data.lines.some((line) => line.cut);
  return h("div", {}, h("p", { class: "quiet small" }, told + shared), table,
    cut && h("details", {}, h("summary", {}, `As text (${data.left_out ? `${count(data.left_out)} lines are not shown above` : "some lines are cut above"})`),
      block({ text: "", next: 0, bytes: data.bytes }, label, more)));
}

/** A line's text, what differs from the line it stands against marked. */
function marked(line) {
  const out = document.createDocumentFragment();
  if (!line.mark) {
    out.append(visible(line.text));
    return out;
  }
  const [from, to] = line.mark;
  out.append(visible(line.text.slice(0, from)));
  if (to > from) {
    const part = h("mark", {});
    part.append(visible(line.text.slice(from, to)));
    out.append(part);
  }
  out.append(visible(line.text.slice(to)));
  return out;
}
