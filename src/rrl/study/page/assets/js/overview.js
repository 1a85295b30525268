// The first view: what was run, curves over four axes, final tables, what differs, where the time went.

const SMOOTH = [
  ["0", "nothing"],
  ["0.02", "2 %"],
  ["0.1", "10 %"],
];

/** `options`: x (axis), smooth, group, more (names of further metrics, with commas), off (numbers of arms). */
async function showOverview(main, options) {
  const group = Number(options.get("group") || 0);
  const axis = AXES[options.get("x")] ? options.get("x") : "generated";
  const smooth = SMOOTH.some(([value]) => value === options.get("smooth")) ? options.get("smooth") : "0";
  const off = new Set((options.get("off") || "").split(",").filter(Boolean).map(Number));
  const more = (options.get("more") || "").split(",").filter((name) => BLOCKS.has(`metric/${name}`));
  const change = (values) => {
    location.replace(routeOf("overview", { ...Object.fromEntries(options), ...values }));
  };
  const runs = new Set(INDEX.runs.map((run, i) => (run.group === group ? i : -1)).filter((i) => i >= 0));
  const arms = INDEX.arms.map((_, i) => i).filter((i) => INDEX.arms[i].runs.some((run) => runs.has(run)));
  const grid = h("div", { class: "figures" });
  fill(
    main,
    h("h1", null, "Overview"),
    notices(),
    h(
      "section",
      { "aria-label": "Curves" },
      h(
        "div",
        { class: "controls" },
        INDEX.groups.length > 1 &&
          choice(
            "Questions",
            INDEX.groups.map((name, i) => [String(i), name]),
            String(group),
            (value) => change({ group: value, off: "" }),
          ),
        h(
          "div",
          { class: "segments", role: "group", "aria-label": "Horizontal axis" },
          Object.entries(AXES).map(([name, label]) => toggle(label, name === axis, () => change({ x: name }))),
        ),
        choice("Average over", SMOOTH, smooth, (value) => change({ smooth: value })),
        choice(
          "Another figure",
          [
            ["", "choose …"],
            ...metricNames().map((name) => [name, metricTitle(name) === name ? name : `${metricTitle(name)}: ${name}`]),
          ],
          "",
          (name) => name && change({ more: [...more, name].join(",") }),
        ),
      ),
      h(
        "div",
        { class: "legend", role: "group", "aria-label": "Arms" },
        arms.map((arm) =>
          toggle(
            [
              swatch(arm),
              `${INDEX.arms[arm].name} · ${count(INDEX.arms[arm].runs.filter((run) => runs.has(run)).length, "seed")}`,
            ],
            !off.has(arm),
            () => {
              if (!off.delete(arm)) off.add(arm);
              change({ off: [...off].join(",") });
            },
          ),
        ),
      ),
      h(
        "p",
        { class: "note" },
        "Thick: mean of the seeds. Band: lowest to highest seed; of a single run, its 95 % interval over questions. ",
        "Curves are interpolated between measurements. Point at them to read them, click for the steps there, ",
        "drag to enlarge, click twice to go back.",
      ),
      grid,
    ),
    h(
      "div",
      { class: "tables" },
      resultTables(group),
      runsTable(runs),
      INDEX.differences.rows.length ? tableCard(INDEX.differences) : null,
      INDEX.seconds.head.length > 1 ? secondsTable(arms) : null,
    ),
  );
  const shown = arms.filter((arm) => !off.has(arm));
  for (const name of new Set([...startingMetrics(runs), ...more])) {
    const figure = await figureOf(name, axis, shown, runs, Number(smooth));
    if (figure.arms.length && grid.isConnected) {
      grid.append(
        chart(figure, more.includes(name) && (() => change({ more: more.filter((each) => each !== name).join(",") }))),
      );
    }
  }
}

function metricNames() {
  return [...BLOCKS.keys()].filter((name) => name.startsWith("metric/")).map((name) => name.slice(7));
}

const UNUSUAL = ["critic/score/mean", "replay/buffer_size"];

/** Accuracy by each way of sampling, and the usual numbers of training or, where there is none, the first ones. */
function startingMetrics() {
  const names = metricNames();
  const accuracies = names
    .filter((name) => /^accuracy\/[^/]+$/.test(name))
    .sort((a, b) => a.includes("greedy") - b.includes("greedy"));
  const usual = PREFERRED.filter((name) => names.includes(name) && !UNUSUAL.includes(name));
  return [...accuracies, ...(usual.length ? usual : names.filter((name) => !name.startsWith("accuracy/")).slice(0, 6))];
}

function notices() {
  if (!INDEX.faults.length) return null;
  return h(
    "details",
    { class: "notice", open: INDEX.faults.length <= 3 },
    h("summary", null, `${count(INDEX.faults.length, "thing")} to know about these records`),
    h(
      "ul",
      null,
      INDEX.faults.map((fault) => h("li", null, ...seen(fault))),
    ),
  );
}

function resultTables(group) {
  return INDEX.tables.filter((each) => each.group === group).map(tableCard);
}

/** A table with buttons that copy it; `cells` makes a row of it, its own cells by default. */
function tableCard({ title, head, rows, markdown, latex }, cells) {
  return h(
    "section",
    { class: "card" },
    h(
      "div",
      { class: "heading" },
      h("h2", null, title),
      h(
        "span",
        { class: "buttons" },
        copier("Markdown", markdown, { "aria-label": `${title} as Markdown` }),
        copier("LaTeX", latex, { "aria-label": `${title} as LaTeX` }),
      ),
    ),
    table(head, typeof cells === "function" ? rows.map(cells) : rows, { label: title }),
  );
}

function runsTable(runs) {
  const rows = [...runs].map((number) => {
    const run = INDEX.runs[number];
    return [
      link(run.name, routeOf("steps", { run: run.name })),
      INDEX.arms[armOf[number]].name,
      short(run.seed),
      h("span", { class: `state ${run.state}`, title: run.reason || "" }, run.state),
      short(run.step),
      short(run.tokens),
      `${short(run.kept)} of ${short(run.of)}`,
    ];
  });
  return h(
    "section",
    { class: "card" },
    h("h2", null, "Runs"),
    table(["run", "arm", "seed", "state", "steps", "generated tokens", "rollouts kept"], rows, { label: "Runs" }),
    h("p", { class: "note" }, `Kept: ${INDEX.rule}. Counts by verdict are those of all rollouts that were dumped.`),
  );
}

/** Seconds by phase, with a bar for each arm in which each phase has its colour. */
function secondsTable(arms) {
  const { head, rows, ...rest } = INDEX.seconds;
  const here = rows.filter((_, arm) => arms.includes(arm));
  const longest = Math.max(...here.map((row) => row.slice(1).reduce((sum, cell) => sum + Number(cell), 0)));
  const bar = (row) =>
    h(
      "span",
      { class: "stack", "aria-hidden": "true" },
      row
        .slice(1)
        .map((cell, i) =>
          h("span", { style: { width: `${(100 * Number(cell)) / longest}%`, background: colourOf(i, theme()) } }),
        ),
    );
  return tableCard(
    { ...rest, head: [head[0], "", ...head.slice(1).map((phase, i) => [swatch(i), " ", phase])], rows: here },
    (row) => [row[0], bar(row), ...row.slice(1)],
  );
}
