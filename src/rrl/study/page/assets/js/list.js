// The list of rollouts: filters, sorting, search through all texts, and the rollout that is open beside it.

const PAGE = 100;
const SORTS = { step: "step", score: "score", reward: "reward", advantage: "advantage", tokens: "length", level: "level", p: "problem" };
const RANGES = { score: "score", reward: "reward", advantage: "advantage", tokens: "length" };
let shownIds = [];

/** `options`: open (id), q (text), sort ("-" before it: falling), run, verdict, source, start, ended, level, <range>_min, <range>_max. */
async function showRollouts(main, options) {
  const rows = await allRows();
  if (!rows.length) {
    fill(main, h("h1", null, "Rollouts"), h("p", null, "No rollouts were dumped in these runs; train with run.rollout_freq=N."));
    return;
  }
  const list = h("ol", { class: "rows", "aria-label": "Rollouts" });
  const detail = h("section", { class: "detail", id: "detail", "aria-label": "Rollout", tabindex: -1 });
  const counter = h("p", { class: "note count", role: "status" });
  const open = options.get("open");
  fill(main, h("div", { class: `explorer${open ? " opened" : ""}` },
    h("div", { class: "side" }, h("h1", null, "Rollouts"), filters(rows, options), counter, keptNote(), list), detail));
  const filtered = sorted(rows.filter((row) => passes(row, options)), options.get("sort") || "step");
  const query = options.get("q") || "";
  const turn = showRollouts.turn = (showRollouts.turn || 0) + 1;
  const current = () => turn === showRollouts.turn && list.isConnected;
  let opening = null;
  if (open) opening = showSample(detail, open, { pattern: patternOf(query), token: options.get("token"), close: () => go("rollouts", { ...Object.fromEntries(options), open: null, token: null }) });
  else fill(detail, h("p", { class: "note" }, "Choose a rollout; j and k go to the next and the previous one."));
  shownIds = [];
  const found = query ? [] : filtered;
  const render = more(list, options, found, open);
  const tell = (done) => { counter.textContent = `${count(found.length, "rollout")}${done ? "" : ", searching …"}`; };
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
  await opening;
  const chosen = list.querySelector("[aria-current]");
  if (chosen) list.scrollTop = chosen.offsetTop - list.offsetTop - list.clientHeight / 2;
}

function keptNote() {
  const kept = INDEX.runs.reduce((sum, run) => sum + run.kept, 0);
  return h("details", { class: "note" }, h("summary", null, `${kept.toLocaleString("en")} of ${INDEX.of_rollouts.toLocaleString("en")} rollouts are on this page`), INDEX.rule);
}

function keptText() {
  const kept = INDEX.runs.reduce((sum, run) => sum + run.kept, 0);
  return `${kept.toLocaleString("en")} of ${INDEX.of_rollouts.toLocaleString("en")} rollouts, by this rule: ${INDEX.rule}`;
}

/** Renders the rows around the open one that are not there yet, and buttons for those before and after. */
function more(list, options, found, open) {
  let first = null;
  let last = 0;
  const before = h("li", { class: "more" }, button("Show earlier", () => {
    const from = Math.max(0, first - PAGE);
    before.after(...found.slice(from, first).map((row) => item(row, options, open)));
    first = from;
    render(0);
  }));
  const after = h("li", { class: "more" }, button("Show more", () => render(PAGE)));
  function render(further) {
    shownIds = found.map((row) => row.id);
    if (first === null) first = last = Math.max(0, found.findIndex((row) => row.id === open) - PAGE / 2);
    const end = Math.min(found.length, Math.max(last + further, first + PAGE));
    list.append(...found.slice(last, end).map((row) => item(row, options, open)));
    last = end;
    if (first > 0) list.prepend(before); else before.remove();
    if (last < found.length) list.append(after); else after.remove();
  }
  return render;
}

function item(row, options, open) {
  const route = routeOf("rollouts", { ...Object.fromEntries(options), open: row.id, token: null });
  return h("li", { class: "row", "data-id": row.id },
    link([verdictSign(row.verdict),
      h("span", { class: "id" }, row.id),
      h("span", { class: "facts" }, ...facts(row).flatMap((fact) => [fact, " · "]).slice(0, -1))], route, { "aria-current": row.id === open ? "true" : null }));
}

/** What a line says of a rollout. */
function facts(row) {
  return [
    row.outcome && row.outcome !== row.verdict && row.outcome,
    row.level && levelText(row.level), `score ${short(row.score, 2)}`, row.advantage !== null && `advantage ${short(row.advantage, 2)}`,
    count(row.tokens, "token"), !row.finished && "truncated", row.replayed && h("b", null, "replayed"), row.help && `help: ${row.help}`,
    row.source === "evaluation" && `evaluation ${row.mode || ""}`,
  ].filter(Boolean);
}

function passes(row, options) {
  const equal = { run: INDEX.runs[row.run].name, verdict: row.verdict, outcome: row.outcome, source: row.source, level: row.level, problem: INDEX.problems[row.p].id };
  for (const [name, value] of Object.entries(equal)) if (options.get(name) && options.get(name) !== String(value)) return false;
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
  return rows.sort((a, b) => order(a[name], b[name]) || a.run - b.run || a.step - b.step || (b.source > a.source) - (b.source < a.source) || a.row - b.row);
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
      if (texts.some((text) => text.search(pattern) >= 0)) hits.push(row);
    }
    yield hits;
  }
}

function filters(rows, options) {
  const set = (name) => (value) => go("rollouts", { ...Object.fromEntries(options), [name]: value || null, open: null });
  const of = (read) => [...new Set(rows.map(read))].filter((value) => value !== null && value !== "").sort(numerically);
  const select = (label, name, values, names = {}) =>
    values.length > 1 && choice(label, [["", "all"], ...values.map((value) => [value, names[value] || value])], options.get(name) || "", set(name));
  const sort = options.get("sort") || "step";
  const names = Object.fromEntries(Object.entries(VERDICTS).map(([name, [, label]]) => [name, label]));
  const active = [...options.keys()].filter((name) => !["open", "token", "sort", "q"].includes(name));
  return h("details", { class: "filters", open: matchMedia("(min-width: 900px)").matches || active.length > 0 },
    h("summary", null, active.length ? `Filter and sort (${active.length} set)` : "Filter and sort"),
    h("div", { class: "controls" },
      select("Run", "run", INDEX.runs.filter((run) => run.kept).map((run) => run.name)),
      select("Verdict", "verdict", of((row) => row.verdict), names),
      select("Outcome", "outcome", of((row) => row.outcome)),
      select("From", "source", of((row) => row.source)),
      select("Start", "start", ["fresh", "replayed"]),
      select("End", "ended", ["finished", "truncated"]),
      select("Level", "level", of((row) => row.level)),
      Object.entries(RANGES).filter(([name]) => rows.some((row) => row[name] !== null)).map(([name, label]) => range(label, name, options, set)),
      choice("Sort by", Object.entries(SORTS).map(([name, label]) => [name, label]), sort.replace("-", ""), (value) => set("sort")(value)),
      toggle("falling", sort.startsWith("-"), () => set("sort")(sort.startsWith("-") ? sort.slice(1) : `-${sort}`)),
      active.length > 0 && button("Clear filters", () => go("rollouts", { q: options.get("q"), sort: options.get("sort") }))));
}

function numerically(a, b) {
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function range(label, name, options, set) {
  const input = (end, text) => h("input", {
    type: "number", step: "any", value: options.get(`${name}_${end}`) || "", placeholder: text, "aria-label": `${label}, ${end === "min" ? "at least" : "at most"}`,
    on: { change: (event) => set(`${name}_${end}`)(event.target.value) },
  });
  return h("span", { class: "field" }, h("span", null, label), h("span", { class: "pair" }, input("min", "min"), input("max", "max")));
}
