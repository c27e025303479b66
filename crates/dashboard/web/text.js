// Texts of models, tools and other programs: everything that has no shape of its own, or changes the
// direction of others, is made visible. What comes out is text nodes, never markup.

import { api } from "/link.js";
import { h, fill } from "/dom.js";

// Control, format, private, unassigned and half characters; spaces that look like others or like
// nothing; what a font may leave out; more accents on one letter than any language has.
const ODD = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs}|\p{M}{4,}/gu;
const KEEP = new Set(["\n", "\t"]);

/** A text as nodes; what had to be replaced is marked and says what it is. */
export function visible(text) {
  const out = document.createDocumentFragment();
  let at = 0;
  for (const match of text.matchAll(ODD)) {
    if (KEEP.has(match[0])) continue;
    if (match.index > at) out.append(text.slice(at, match.index));
    out.append(h("span", { class: "odd", title: "a character that cannot be seen" }, standIn(match[0])));
    at = match.index + match[0].length;
  }
  if (at < text.length) out.append(text.slice(at));
  return out;
}

function standIn(found) {
  const code = found.codePointAt(0);
  if ([...found].length > 1) return `[${[...found].length} accents]`;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** A text on one line, cut: for names. */
export function short(text, most = 80) {
  const chars = [...String(text ?? "")];
  const plain = (part) => part.join("").replace(ODD, (found) => standIn(found)).replace(/\s+/g, " ");
  if (chars.length <= most) return plain(chars);
  const head = Math.ceil((most - 1) / 2);
  return `${plain(chars.slice(0, head))}…${plain(chars.slice(-(most - 1 - head)))}`;
}

/**
 * A block of text with a button for the rest of it. `more(from)` is the address of the next piece.
 * Lines past the first few are folded away where a block is long.
 */
export function block(excerpt, label, more, className = "") {
  const pre = h("pre", { class: `text ${className}`, dir: "ltr", tabindex: "0", role: "group", "aria-label": label });
  pre.append(visible(excerpt.text));
  if (!excerpt.text && excerpt.next === undefined) fill(pre, h("span", { class: "quiet" }, "(empty)"));
  if (excerpt.next === undefined) return pre;
  const button = h("button", { type: "button", class: "more" });
  const told = (next) => { button.textContent = `Show more (${(excerpt.bytes - next).toLocaleString("en")} bytes are left)`; };
  let next = excerpt.next;
  told(next);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const piece = await api(more(next));
      pre.append(visible(piece.text));
      next = piece.next;
      if (next === undefined) button.remove();
      else told(next);
    } catch (error) {
      button.textContent = `Not read (${error.message}). Try again`;
    }
    button.disabled = false;
  });
  return h("div", {}, pre, button);
}
