// The list of rollouts, the search through their texts, and the rollout that is open beside it.

const PAGE = 100;
let shownIds = [];

/** `options`: open (id), token, q (text), sort ("-" before it: falling), and the names of filters.js. */
async function showRollouts(main, options) {
  const rows = await allRows();
  if (!rows.length) {
    fill(
      main,
      h("h1", null, "Rollouts"),
      h("p", null, "No rollouts were dumped in these runs; train with run.rollout_freq=N."),
    );
    return;
  }
  const list = h("ol", { class: "rows", "aria-label": "Rollouts" });
  const detail = h("section", { class: "detail", id: "detail", "aria-label": "Rollout", tabindex: -1 });
  const counter = h("p", { class: "note count", role: "status" });
  const open = options.get("open");
  fill(
    main,
    h(
      "div",
      { class: `explorer${open ? " opened" : ""}` },
      h("div", { class: "side" }, h("h1", null, "Rollouts"), filters(rows, options), counter, keptNote(), list),
      detail,
    ),
  );
  const filtered = sorted(
    rows.filter((row) => passes(row, options)),
    options.get("sort") || "step",
  );
  const query = options.get("q") || "";
  const turn = (showRollouts.turn = (showRollouts.turn || 0) + 1);
  const current = () => turn === showRollouts.turn && list.isConnected;
  let opening = null;
  if (open)
    opening = showSample(detail, open, {
      pattern: patternOf(query),
      token: options.get("token"),
      close: () => go("rollouts", { ...Object.fromEntries(options), open: null, token: null }),
    });
  else fill(detail, h("p", { class: "note" }, "Choose a rollout; j and k go to the next and the previous one."));
  shownIds = [];
  const found = query ? [] : filtered;
  const render = more(list, options, found, open);
  const tell = (done) => {
    counter.textContent = `${count(found.length, "rollout")}${done ? "" : ", searching …"}`;
  };
  if (query) {
    for await (const hits of search(filtered, patternOf(query))) {
      if (!current()) return;
      found.push(...hits);
      if (!open) render(0);
      tell(false);
    }
  }
  if (!current()) return;
  render(0);
  tell(true);
  if (!found.length) list.append(h("li", { class: "more" }, "No rollout fits all of this."));
  await opening;
  const chosen = list.querySelector("[aria-current]");
  if (chosen) list.scrollTop = chosen.offsetTop - list.offsetTop - list.clientHeight / 2;
}

function keptNote() {
  const kept = INDEX.runs.reduce((sum, run) => sum + run.kept, 0);
  return h(
    "details",
    { class: "note" },
    h(
      "summary",
      null,
      `${kept.toLocaleString("en")} of ${INDEX.of_rollouts.toLocaleString("en")} rollouts are on this page`,
    ),
    INDEX.rule,
  );
}

function keptText() {
  const kept = INDEX.runs.reduce((sum, run) => sum + run.kept, 0);
  return `${short(kept)} of ${short(INDEX.of_rollouts)} rollouts, by this rule: ${INDEX.rule}`;
}

/** Renders the rows around the open one that are not there yet, and buttons for those before and after. */
function more(list, options, found, open) {
  let first = null;
  let last = 0;
  const before = h(
    "li",
    { class: "more" },
    button("Show earlier", () => {
      const from = Math.max(0, first - PAGE);
      before.after(...found.slice(from, first).map((row) => item(row, options, open)));
      first = from;
      render(0);
    }),
  );
  const after = h(
    "li",
    { class: "more" },
    button("Show more", () => render(PAGE)),
  );
  function render(further) {
    shownIds = found.map((row) => row.id);
    if (first === null) first = last = Math.max(0, found.findIndex((row) => row.id === open) - PAGE / 2);
    const end = Math.min(found.length, Math.max(last + further, first + PAGE));
    list.append(...found.slice(last, end).map((row) => item(row, options, open)));
    last = end;
    if (first > 0) list.prepend(before);
    else before.remove();
    if (last < found.length) list.append(after);
    else after.remove();
  }
  return render;
}

function item(row, options, open) {
  const route = routeOf("rollouts", { ...Object.fromEntries(options), open: row.id, token: null });
  return h(
    "li",
    { class: "row", "data-id": row.id },
    link(
      [
        verdictSign(row.verdict),
        h("span", { class: "id" }, row.id),
        h(
          "span",
          { class: "facts" },
          ...facts(row)
            .flatMap((fact) => [fact, " · "])
            .slice(0, -1),
        ),
        row.around &&
          h("span", { class: "around", dir: "auto" }, ...textNodes(row.around, patternOf(options.get("q") || ""))),
      ],
      route,
      { "aria-current": row.id === open ? "true" : null },
    ),
  );
}

/** What a line says of a rollout. */
function facts(row) {
  return [
    row.outcome && row.outcome !== row.verdict && row.outcome,
    row.level && levelText(row.level),
    `score ${short(row.score, 2)}`,
    row.advantage !== null && `advantage ${short(row.advantage, 2)}`,
    count(row.tokens, "token"),
    !row.finished && "truncated",
    row.replayed && h("b", null, "replayed"),
    row.help && `help: ${row.help}`,
    row.source === "evaluation" && `evaluation ${row.mode || ""}`,
  ].filter(Boolean);
}

/** A match with some characters before and after it, on one line. */
function around(text, pattern) {
  const at = text.search(pattern);
  const [start, end] = [Math.max(0, at - 40), at + 80];
  return `${start ? "…" : ""}${text.slice(start, end)}${end < text.length ? "…" : ""}`.replace(/\s+/g, " ");
}

/** The rows whose prompt, prefix or response has a match, a block at a time. */
async function* search(rows, pattern) {
  const places = new Map();
  for (const row of rows) {
    const place = `rollouts/${row.run}/${row.source}/${row.step}`;
    places.set(place, [...(places.get(place) || []), row]);
  }
  for (const [place, here] of places) {
    const full = new Map((await block(place)).map((row) => [row.r, row]));
    const hits = [];
    for (const row of here) {
      const texts = [full.get(row.row).response, (await problem(row.p)).question || ""];
      const text = texts.find((each) => each.search(pattern) >= 0);
      if (text !== undefined) hits.push({ ...row, around: around(text, pattern) });
    }
    yield hits;
  }
}
