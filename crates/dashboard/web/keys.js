// The keyboard. A view marks its rows with `data-row`, its filter with `data-filter`, and what Enter
// does with a click on the row.

const isField = (element) => element.matches?.("input:not([type=range], [type=checkbox], [type=radio]), select, textarea");

/** Rows of the view that can be seen. */
function rows() {
  return [...document.querySelectorAll("main [data-row]")].filter((row) => row.checkVisibility?.() ?? row.offsetParent !== null);
}

function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement?.closest?.("[data-row]"));
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
  const row = all[next];
  // Tab comes back to the row that was marked last.
  for (const other of all) other.tabIndex = other === row ? 0 : -1;
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

/** Begins to listen. `go(n)` opens a view, `back()` leaves one, `page(by)` turns pages. */
export function listen({ go, back, page, help }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target;
    if (event.key === "Escape") {
      if (isField(target)) target.blur();
      else back();
      return;
    }
    if (isField(target)) return;
    const act = {
      j: () => step(1),
      k: () => step(-1),
      n: () => page(1),
      p: () => page(-1),
      "?": help,
      "/": () => {
        const field = document.querySelector("main [data-filter]");
        field?.focus();
        field?.select?.();
      },
    }[event.key];
    if (act) {
      event.preventDefault();
      act();
    } else if (/^[1-9]$/.test(event.key)) {
      go(Number(event.key) - 1);
    } else if (event.key === "Enter" && target.matches?.("[data-row]")) {
      event.preventDefault();
      target.click();
    }
  });
}
