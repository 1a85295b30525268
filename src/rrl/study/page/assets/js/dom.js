// Makes elements. Whatever a model, a task or a user wrote becomes text nodes and attributes, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on` are its listeners, `style` its CSS properties, null and false attributes are left out. */
function h(tag, attributes, ...children) {
  const { on, style, ...rest } = attributes || {};
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, listener] of Object.entries(on || {})) element.addEventListener(name, listener);
  for (const [name, value] of Object.entries(style || {})) element.style.setProperty(name, value);
  element.append(...present(children));
  return element;
}

/** Children without null, undefined and false, which stand for nothing. */
function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts these children in place of those that are there. */
function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/** An element of SVG. */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(label, action, attributes) {
  return h("button", { type: "button", on: { click: action }, ...attributes }, label);
}

/** A button that is on or off. */
function toggle(label, pressed, action, attributes) {
  return button(label, action, { "aria-pressed": String(pressed), ...attributes });
}

function link(label, route, attributes) {
  return h("a", { href: route, ...attributes }, label);
}

/** A list to choose from: `options` are [value, label] pairs. */
function choice(label, options, chosen, action) {
  const select = h(
    "select",
    { "aria-label": label, on: { change: () => action(select.value) } },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  return h("label", { class: "field" }, h("span", null, label), select);
}

function table(head, rows, attributes) {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": (attributes || {}).label || "Table" },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          head.map((cell) => h("th", { scope: "col" }, cell)),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            null,
            row.map((cell, i) => h(i ? "td" : "th", i ? null : { scope: "row" }, cell)),
          ),
        ),
      ),
    ),
  );
}

/** Shows a message for those who see and those who listen. */
function say(message) {
  const status = document.getElementById("status");
  status.textContent = message;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    status.textContent = "";
  }, 4000);
}

/** A button that puts a text on the clipboard, exactly as it is. */
function copier(label, text, attributes) {
  return button(
    label,
    async () => {
      const exact = typeof text === "function" ? text() : text;
      try {
        await navigator.clipboard.writeText(exact);
      } catch {
        const area = h("textarea", { class: "skip" });
        area.value = exact;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      say(`Copied (${exact.length.toLocaleString("en")} characters)`);
    },
    { class: "quiet", ...attributes },
  );
}

function download(name, content, type) {
  const address =
    typeof content === "string" && content.startsWith("data:")
      ? content
      : URL.createObjectURL(new Blob([content], { type }));
  const anchor = h("a", { href: address, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Numbers as people read them. */
function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e5 || (size < 1e-3 && size > 0) ? value.toExponential(2) : value.toFixed(size >= 100 ? 1 : digits);
}

function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
