// Making and changing nodes. Text only ever becomes text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/**
 * An address of the uploader, also below the path of a proxy. Not by `document.baseURI`: when somebody typed
 * the password into the address bar it holds that, and no browser asks for such an address.
 */
export const address = (path) => new URL(path.replace(/^\/+/, ""), location.href).href;

/** Make an element with a class and children; strings become text. */
export function make(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** Set a node's text, and leave it alone when it is so already: a selection in it stays. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set(node, attribute, value) {
  if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** A mark of index.html by its name: the same thing as the colour says, for those who do not see it. */
export function mark(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "mark");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#mark-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Bring a list into an order with as few moves as possible, and drop what is not wanted any more.
 * The node that has the keyboard's focus is not moved: the others are moved around it.
 */
export function arrange(list, wanted) {
  const keep = new Set(wanted);
  for (const node of [...list.children]) if (!keep.has(node)) node.remove();
  const focused = wanted.find((node) => node.parentNode === list && node.contains(document.activeElement));
  let cursor = list.firstElementChild;
  for (const node of wanted) {
    if (node === focused) {
      while (cursor !== node) {
        const other = cursor;
        cursor = cursor.nextElementSibling;
        list.append(other);
      }
    }
    if (node === cursor) cursor = cursor.nextElementSibling;
    else list.insertBefore(node, cursor);
  }
}

/** Show one node for each item, kept by its key, so that what did not change stays as it is. */
export function keyed(list, items, keyOf, create, update) {
  list.known ??= new Map();
  const before = list.known;
  list.known = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const node = before.get(key) ?? create(item);
    update(node, item);
    list.known.set(key, node);
  }
  arrange(list, [...list.known.values()]);
}
