// Texts of models: what cannot be seen, or turns the direction of writing, is shown by its number and has no effect.

const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Nodes for a text; matches of `pattern` (or null) are marked. */
function textNodes(text, pattern) {
  const nodes = [];
  let at = 0;
  for (const match of pattern ? text.matchAll(pattern) : []) {
    if (!match[0]) break;
    nodes.push(...seen(text.slice(at, match.index)), h("mark", null, ...seen(match[0])));
    at = match.index + match[0].length;
  }
  return [...nodes, ...seen(text.slice(at))];
}

function seen(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > at) nodes.push(text.slice(at, match.index));
    const code = match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(h("span", { class: "unseen", title: `character U+${code}, shown by its number` }, `U+${code}`));
    at = match.index + 1;
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

/** A block of a model's text, kept apart from the direction of what is around it. */
function textBlock(text, pattern, attributes) {
  return h("pre", { class: "text", dir: "auto", ...attributes }, ...textNodes(text, pattern));
}

/** A pattern that finds a query as it is typed, whatever its case; null for none. */
function patternOf(query) {
  return query ? new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi") : null;
}

const VERDICTS = {
  right: ["✓", "right"],
  wrong: ["✗", "wrong"],
  unparseable: ["?", "unparseable"],
  error: ["!", "verifier error"],
};

/** A sign for a verdict, told by shape and colour. */
function verdictSign(verdict) {
  const [sign, label] = VERDICTS[verdict] || ["·", verdict];
  return h(
    "span",
    { class: `verdict ${VERDICTS[verdict] ? verdict : "other"}`, role: "img", "aria-label": label, title: label },
    sign,
  );
}

/** The sign alone, as a link, where many stand together. */
function signLink(row) {
  return link([verdictSign(row.verdict), row.replayed && h("b", null, "↻")], sampleRoute(row.id), {
    class: "sign",
    title: `${row.id}${row.replayed ? ", replayed" : ""}`,
  });
}

/** A level as people read it: `level L3`, but `Level 3` where the data says so already. */
function levelText(level) {
  return /^level/i.test(level) ? level : `level ${level}`;
}

/** A bar of shares by verdict. */
function verdictBar(verdicts) {
  const total = Object.values(verdicts).reduce((a, b) => a + b, 0);
  const order = [...Object.keys(VERDICTS), ...Object.keys(verdicts).filter((name) => !VERDICTS[name])];
  const parts = order.filter((name) => verdicts[name]);
  const label = parts.map((name) => `${short((100 * verdicts[name]) / total, 1)} % ${name}`).join(", ");
  return h(
    "span",
    { class: "bar", role: "img", "aria-label": label, title: label },
    parts.map((name) =>
      h("span", { class: VERDICTS[name] ? name : "other", style: { "flex-grow": String(verdicts[name]) } }),
    ),
  );
}
