// Elements, and lists that are brought up to date in place. Text only ever becomes a text node.

/** An element: `h("p", { class: "quiet", onclick }, "text", child)`. Empty children are left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) set(element, name, value);
  append(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function s(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) set(element, name, value);
  append(element, children);
  return element;
}

function set(element, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "text") element.textContent = value;
  else if (value === true) element.setAttribute(name, "");
  else element.setAttribute(name, value);
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === "") continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Puts a text up if it is another than the one that is up. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or takes away a class or an attribute, if that changes anything. */
export function mark(element, name, is) {
  if (element.classList.contains(name) !== !!is) element.classList.toggle(name, !!is);
}

/**
 * Brings the children of an element to these items, in this order. Elements of keys that stay are
 * kept: whoever is focused stays focused, and nothing jumps.
 */
export function keyed(parent, items, key, make, update) {
  const had = new Map();
  for (const child of [...parent.children]) had.set(child.dataset.key, child);
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = had.get(name);
    if (element) had.delete(name);
    else {
      element = make(item);
      element.dataset.key = name;
    }
    update?.(element, item);
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  for (const rest of had.values()) rest.remove();
}

/** Calls once things have been quiet for so long. */
export function later(ms, call) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...args), ms);
  };
}
