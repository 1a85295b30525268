// What narrows and orders the list of rollouts: its rules and its controls.

const SORTS = {
  step: "step",
  score: "score",
  reward: "reward",
  advantage: "advantage",
  tokens: "length",
  level: "level",
  p: "problem",
};
const RANGES = { score: "score", reward: "reward", advantage: "advantage", tokens: "length" };

/** What else its problem is reported by, as in {subject: "algebra"}. */
function strataOf(row) {
  return INDEX.problems[row.p].strata;
}

function passes(row, options) {
  const equal = {
    run: INDEX.runs[row.run].name,
    verdict: row.verdict,
    outcome: row.outcome,
    source: row.source,
    level: row.level,
    problem: INDEX.problems[row.p].id,
  };
  for (const [name, value] of Object.entries(equal))
    if (options.get(name) && options.get(name) !== String(value)) return false;
  for (const [name, value] of options)
    if (name.startsWith("strata.") && value && String(strataOf(row)[name.slice(7)]) !== value) return false;
  if (options.get("start") && (options.get("start") === "replayed") !== row.replayed) return false;
  if (options.get("ended") && (options.get("ended") === "truncated") === row.finished) return false;
  return Object.keys(RANGES).every((name) => {
    const [low, high] = [options.get(`${name}_min`), options.get(`${name}_max`)];
    if (!low && !high) return true;
    return row[name] !== null && (!low || row[name] >= Number(low)) && (!high || row[name] <= Number(high));
  });
}

function sorted(rows, sort) {
  const [sign, name] = sort.startsWith("-") ? [-1, sort.slice(1)] : [1, sort];
  const order = (a, b) => (a === null) - (b === null) || sign * (a < b ? -1 : a > b ? 1 : 0);
  return rows.sort(
    (a, b) =>
      order(a[name], b[name]) ||
      a.run - b.run ||
      a.step - b.step ||
      (b.source > a.source) - (b.source < a.source) ||
      a.row - b.row,
  );
}

function filters(rows, options) {
  const set = (name) => (value) =>
    go("rollouts", { ...Object.fromEntries(options), [name]: value || null, open: null });
  const of = (read) => [...new Set(rows.map(read))].filter((value) => value !== null && value !== "").sort(numerically);
  const select = (label, name, values, names = {}) =>
    values.length > 1 &&
    choice(
      label,
      [["", "all"], ...values.map((value) => [value, names[value] || value])],
      options.get(name) || "",
      set(name),
    );
  const sort = options.get("sort") || "step";
  const names = Object.fromEntries(Object.entries(VERDICTS).map(([name, [, label]]) => [name, label]));
  const active = [...options.keys()].filter((name) => !["open", "token", "sort", "q"].includes(name));
  return h(
    "details",
    { class: "filters", open: matchMedia("(min-width: 900px)").matches || active.length > 0 },
    h("summary", null, active.length ? `Filter and sort (${active.length} set)` : "Filter and sort"),
    h(
      "div",
      { class: "controls" },
      select(
        "Run",
        "run",
        INDEX.runs.filter((run) => run.kept).map((run) => run.name),
      ),
      select(
        "Verdict",
        "verdict",
        of((row) => row.verdict),
        names,
      ),
      select(
        "Outcome",
        "outcome",
        of((row) => row.outcome),
      ),
      select(
        "From",
        "source",
        of((row) => row.source),
      ),
      select("Start", "start", ["fresh", "replayed"]),
      select("End", "ended", ["finished", "truncated"]),
      select(
        "Level",
        "level",
        of((row) => row.level),
      ),
      [...new Set(INDEX.problems.flatMap(({ strata }) => Object.keys(strata)))].map((kind) =>
        select(
          kind,
          `strata.${kind}`,
          of((row) => strataOf(row)[kind] ?? null),
        ),
      ),
      Object.entries(RANGES)
        .filter(([name]) => rows.some((row) => row[name] !== null))
        .map(([name, label]) => range(label, name, options, set)),
      choice(
        "Sort by",
        Object.entries(SORTS).map(([name, label]) => [name, label]),
        sort.replace("-", ""),
        (value) => set("sort")(value),
      ),
      toggle("falling", sort.startsWith("-"), () => set("sort")(sort.startsWith("-") ? sort.slice(1) : `-${sort}`)),
      active.length > 0 &&
        button("Clear filters", () => go("rollouts", { q: options.get("q"), sort: options.get("sort") })),
    ),
  );
}

function numerically(a, b) {
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function range(label, name, options, set) {
  const input = (end, text) =>
    h("input", {
      type: "number",
      step: "any",
      value: options.get(`${name}_${end}`) || "",
      placeholder: text,
      "aria-label": `${label}, ${end === "min" ? "at least" : "at most"}`,
      on: { change: (event) => set(`${name}_${end}`)(event.target.value) },
    });
  return h(
    "span",
    { class: "field" },
    h("span", null, label),
    h("span", { class: "pair" }, input("min", "min"), input("max", "max")),
  );
}
