// A response token by token: where each one is, what is known of it, and overlays that show it as colour.

const OVERLAYS = {
  logprobs: {
    label: "log-prob",
    hue: [28, 90],
    of: (numbers) => numbers.logprobs,
    note: "log-probability under which the engine drew the token (nats)",
    low: true,
  },
  entropies: {
    label: "entropy",
    hue: [205, 90],
    of: (numbers) => numbers.entropies,
    note: "entropy of the policy at the token (nats)",
  },
  values: { label: "value", hue: [150, 75], of: (numbers) => numbers.values, note: "critic's value before the token" },
  advantages: {
    label: "advantage",
    hue: [140, 80],
    less: [0, 85],
    of: (numbers) => numbers.advantages,
    note: "advantage of the token",
  },
  rewards: {
    label: "reward",
    hue: [140, 80],
    less: [0, 85],
    of: (numbers) => numbers.rewards,
    note: "what the token was paid",
  },
  gap: {
    label: "engine − trainer",
    hue: [280, 80],
    less: [320, 85],
    of: (numbers) => minus(numbers.logprobs, numbers.old_logprobs),
    note: "engine's log-probability minus the trainer's",
  },
  ref: {
    label: "trainer − reference",
    hue: [190, 80],
    less: [50, 85],
    of: (numbers) => minus(numbers.old_logprobs, numbers.ref_logprobs),
    note: "trainer's log-probability minus the frozen reference's",
  },
  mask: {
    label: "mask",
    hue: [230, 80],
    of: (numbers) => numbers.logprobs && numbers.logprobs.map(() => 1),
    note: "tokens that the policy chose and is trained on; never the prompt or the prefix",
  },
};
const MOST_TOKENS = 8000;
const overlaysOn = new Set(["logprobs"]);

function minus(a, b) {
  return a && b && a.length === b.length
    ? a.map((value, i) => (value === null || b[i] === null ? null : value - b[i]))
    : null;
}

/**
 * The new tokens' texts, and how they are known: `recorded`, or by `characters` or `words` where there are exactly as
 * many of these as log-probabilities; null where the texts of single tokens are not known.
 */
function newTokens(full) {
  const text = newText(full);
  const recorded = full.numbers && full.numbers.texts;
  if (recorded) return { texts: recorded, by: "recorded" };
  const wanted = (full.logprobs || []).length - (full.finished ? 1 : 0);
  const end = full.finished ? ["⏎end"] : [];
  const characters = [...text];
  if (wanted > 0 && characters.length === wanted) return { texts: [...characters, ...end], by: "characters" };
  const words = text.match(/\s*\S+/g) || [];
  if (wanted > 0 && words.length === wanted) return { texts: [...words, ...end], by: "words" };
  return { texts: [text], by: null };
}

function newText(full) {
  const prefix = full.prefix || "";
  return full.response.startsWith(prefix) ? full.response.slice(prefix.length) : full.response;
}

/** A response with its overlays: `pattern` is what was searched for, `at` the token to show, `cuts` as of cutsOf. */
function tokenView(full, { pattern, at, cuts }) {
  const { texts, by } = newTokens(full);
  const numbers = { logprobs: full.logprobs, ...(full.numbers || {}) };
  const series = by ? Object.fromEntries(Object.entries(OVERLAYS).map(([name, each]) => [name, each.of(numbers)])) : {};
  const usable = (name) => Array.isArray(series[name]) && series[name].length === texts.length;
  const hits = matchedTokens([full.prefix || "", ...texts], pattern);
  const spans = texts
    .slice(0, by ? MOST_TOKENS : texts.length)
    .map((text, i) =>
      h(
        "span",
        { class: `token${hits.has(i + 1) ? " hit" : ""}`, "data-token": i },
        ...(by ? seen(text) : textNodes(text, pattern)),
      ),
    );
  const facts = h("p", { class: "readout", role: "status" });
  const select = (i) => {
    spans.forEach((span, k) => span.classList.toggle("chosen", k === i));
    spans[i].scrollIntoView({ block: "nearest" });
    facts.replaceChildren(...tokenFacts(texts, series, usable, i));
    box.dataset.at = i;
    addressToken(i);
  };
  const box = h(
    "pre",
    {
      class: "text tokens",
      dir: "auto",
      tabindex: 0,
      role: "group",
      "aria-label": "Tokens of the response; the arrow keys go from one to the next",
      on: {
        click: (event) => {
          const span = event.target.closest("[data-token]");
          if (span && by) select(Number(span.dataset.token));
        },
        keydown: (event) => {
          const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (!move || !by) return;
          event.preventDefault();
          select(
            Math.min(spans.length - 1, Math.max(0, Number(box.dataset.at === undefined ? -1 : box.dataset.at) + move)),
          );
        },
      },
    },
    full.prefix
      ? h(
          "span",
          { class: "prefix", title: "replayed prefix: context, neither paid nor trained" },
          ...textNodes(full.prefix, pattern),
        )
      : null,
    by ? spans.map((span, i) => [span, cuts.filter(({ after }) => after === i).map(({ mark }) => mark)]) : spans,
    texts.length > spans.length &&
      h("em", null, ` … ${count(texts.length - spans.length, "further token")} (copy the response to read them)`),
  );
  const curves = strips(series, (i) => spans[i] && select(i));
  const paint = () => {
    const on = [...overlaysOn].filter(usable);
    spans.forEach((span, i) => paintToken(span, i, series, on));
    curves.show(on);
  };
  const switches = Object.entries(OVERLAYS).map(([name, each]) => {
    const there = usable(name);
    const control = toggle(
      each.label,
      there && overlaysOn.has(name),
      () => {
        if (!overlaysOn.delete(name)) overlaysOn.add(name);
        control.setAttribute("aria-pressed", String(overlaysOn.has(name)));
        paint();
        legend.replaceChildren(...legendOf(series, usable));
      },
      {
        disabled: !there,
        title: there ? each.note : `${each.note}: not in this record (records=full writes it)`,
        "data-overlay": name,
      },
    );
    return control;
  });
  const legend = h("div", { class: "scales" }, ...legendOf(series, usable));
  paint();
  if (by && at !== null && at !== undefined && spans[Number(at)]) queueMicrotask(() => select(Number(at)));
  else
    facts.textContent = by
      ? "Choose a token to read its numbers."
      : "This record has no texts of single tokens (records=full writes them).";
  const how = { characters: "Tokens are told apart by characters.", words: "Tokens are told apart by words." }[by];
  return h(
    "div",
    null,
    h("div", { class: "segments overlays", role: "group", "aria-label": "Overlays" }, switches),
    box,
    legend,
    facts,
    curves,
    how && h("p", { class: "note" }, how),
  );
}

/** The numbers of the texts (0: the prefix) that overlap a match in all of them joined. */
function matchedTokens(texts, pattern) {
  const matched = new Set();
  if (!pattern) return matched;
  const ends = [];
  texts.reduce((sum, text) => {
    ends.push(sum + text.length);
    return sum + text.length;
  }, 0);
  for (const match of texts.join("").matchAll(pattern)) {
    ends.forEach((end, i) => {
      if (end > match.index && end - texts[i].length < match.index + match[0].length) matched.add(i);
    });
  }
  return matched;
}

function tokenFacts(texts, series, usable, i) {
  const known = Object.keys(OVERLAYS).filter((name) => usable(name) && name !== "mask");
  const rank = usable("logprobs") ? ` (probability ${short(Math.exp(series.logprobs[i]), 4)})` : "";
  return [
    h("b", null, `token ${i}: `),
    h("code", null, ...seen(JSON.stringify(texts[i]))),
    rank,
    ...known.map((name) => h("span", null, `${OVERLAYS[name].label} ${short(series[name][i], 4)}`)),
  ];
}

/** Bands of colour, one above the other, for each overlay that is on. */
function paintToken(span, i, series, names) {
  const bands = names.map((name, k) => {
    const colour = shade(name, series[name], i);
    return `${colour} ${(100 * k) / names.length}% ${(100 * (k + 1)) / names.length}%`;
  });
  span.style.background =
    names.length === 1
      ? shade(names[0], series[names[0]], i)
      : bands.length
        ? `linear-gradient(${bands.join(", ")})`
        : "";
}

function shade(name, values, i) {
  const { hue, less, low } = OVERLAYS[name];
  const [bottom, top] = boundsOf(name, values);
  const value = values[i];
  if (value === null) return "transparent";
  const strength = less
    ? Math.abs(value) / (top || 1)
    : low
      ? value / (bottom || -1)
      : (value - bottom) / (top - bottom || 1);
  const [angle, saturation] = less && value < 0 ? less : hue;
  return `hsl(${angle} ${saturation}% 50% / ${(0.55 * Math.min(1, Math.max(0, strength))).toFixed(3)})`;
}

/** What the palest and the strongest colour of an overlay stand for. */
function boundsOf(name, values) {
  const there = values.filter((value) => value !== null);
  if (OVERLAYS[name].less) {
    const most = Math.max(...there.map(Math.abs));
    return [-most, most];
  }
  if (OVERLAYS[name].low) return [Math.min(-1, ...there), 0];
  return [Math.min(0, ...there), Math.max(...there)];
}

function legendOf(series, usable) {
  return [...overlaysOn]
    .filter(usable)
    .filter((name) => name !== "mask")
    .map((name) => {
      const { label, hue, less, low } = OVERLAYS[name];
      const [bottom, top] = boundsOf(name, series[name]);
      const strong = ([angle, saturation]) => `hsl(${angle} ${saturation}% 50% / 0.55)`;
      const colours = less
        ? [strong(less), "transparent", strong(hue)]
        : low
          ? [strong(hue), "transparent"]
          : ["transparent", strong(hue)];
      return h(
        "span",
        { class: "scale" },
        `${label} ${short(bottom, 2)}`,
        h("i", { style: { background: `linear-gradient(90deg, ${colours.join(", ")})` } }),
        short(top, 2),
      );
    });
}
