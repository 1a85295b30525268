// Views by address, keys, and the switch between light and dark.

const VIEWS = {
  overview: showOverview,
  rollouts: showRollouts,
  steps: showSteps,
  step: showStep,
  problem: showProblem,
  replay: showReplay,
};
const TABS = [
  ["overview", "Overview"],
  ["steps", "Steps"],
  ["rollouts", "Rollouts"],
  ["problem", "Problems"],
  ["replay", "Replay"],
];
const SHORTCUTS = [
  ["j, k", "next and previous rollout of the list"],
  ["n, p", "next and previous problem"],
  ["← →", "next and previous token, when the response has the focus"],
  ["/", "search"],
  ["Escape", "close, leave the search"],
  ["g then o s r b m", "Overview, Steps, Rollouts, Problems, Replay (memory)"],
  ["?", "this list"],
];
const GO = { o: "overview", s: "steps", r: "rollouts", b: "problem", m: "replay" };
const PLACED = new Set(["step", "problem"]);

/** The address of a view: `values` are its options, or its path where it has one. */
function routeOf(view, values) {
  if (Array.isArray(values)) return `#${[view, ...values.map(encodeURIComponent)].join("/")}`;
  const given = Object.entries(values || {}).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  return `#${view}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

function stepRoute(step) {
  return routeOf("step", [INDEX.runs[step.run].name, step.source, String(step.step)]);
}
function problemRoute(id) {
  return routeOf("problem", [id]);
}
function sampleRoute(id) {
  return routeOf("rollouts", { open: id });
}
function go(view, values) {
  location.hash = routeOf(view, values);
}

function place() {
  const [path, query] = location.hash.slice(1).split("?");
  const [view, ...rest] = path.split("/");
  const known = VIEWS[view] ? view : "overview";
  return { view: known, path: rest.map(decoded), options: new URLSearchParams(query || "") };
}

/** Makes the address that of a token of the open rollout, without another look at it. */
function addressToken(i) {
  const { view, options } = place();
  if (view === "rollouts")
    history.replaceState(null, "", routeOf("rollouts", { ...Object.fromEntries(options), token: i }));
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

let lastView = null;

async function show() {
  const main = document.getElementById("main");
  const { view, path, options } = place();
  delete main.dataset.ready;
  for (const tab of document.querySelectorAll("#tabs a")) {
    const own = tab.dataset.view === view || (view === "step" && tab.dataset.view === "steps");
    if (own) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.getElementById("search").value = options.get("q") || "";
  const scroll = view === lastView && view === "overview" ? window.scrollY : 0;
  lastView = view;
  try {
    await allRows();
    await (PLACED.has(view) ? VIEWS[view](main, path, options) : VIEWS[view](main, options));
  } catch (error) {
    fill(main, h("h1", null, "This view cannot be shown"), h("pre", { class: "text" }, String(error && error.stack)));
    throw error;
  }
  if (view !== "rollouts" || !options.get("open")) window.scrollTo(0, scroll);
  main.dataset.ready = "yes";
}

/** Goes `by` places on in the list of rollouts. */
function move(by) {
  const { view, options } = place();
  if (view !== "rollouts" || !shownIds.length) return;
  const at = shownIds.indexOf(options.get("open"));
  const next = shownIds[at < 0 ? 0 : Math.min(shownIds.length - 1, Math.max(0, at + by))];
  go("rollouts", { ...Object.fromEntries(options), open: next, token: null });
}

/** Goes to the problem after or before the one that is shown. */
async function moveProblem(by) {
  const { view, path, options } = place();
  if (view === "problem") {
    const number = (problemById.has(path[0]) ? problemById.get(path[0]) : -1) + by;
    const total = INDEX.problems.length;
    if (total) location.hash = problemRoute(INDEX.problems[(number + total) % total].id);
    return;
  }
  if (view !== "rollouts") return;
  const rows = await allRows();
  const open = rows.byId.get(options.get("open"));
  const ids = by > 0 ? shownIds : [...shownIds].reverse();
  const later = ids.slice(open ? ids.indexOf(open.id) + 1 : 0).find((id) => !open || rows.byId.get(id).p !== open.p);
  if (later) go("rollouts", { ...Object.fromEntries(options), open: later, token: null });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    onEscape(typing, event);
    return;
  }
  if (typing) return;
  if (onKey.went) {
    onKey.went = false;
    if (GO[event.key]) {
      go(GO[event.key]);
      return;
    }
  }
  const actions = {
    j: () => move(1),
    k: () => move(-1),
    n: () => moveProblem(1),
    p: () => moveProblem(-1),
    "/": () => document.getElementById("search").focus(),
    "?": showKeys,
    g: () => {
      onKey.went = true;
    },
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
}

function onEscape(typing, event) {
  if (typing) {
    event.target.blur();
    return;
  }
  const { view, options } = place();
  if (view === "rollouts" && options.get("open"))
    go("rollouts", { ...Object.fromEntries(options), open: null, token: null });
}

function showKeys() {
  const dialog = document.getElementById("keys");
  fill(
    dialog,
    h("h2", { id: "keys-title" }, "Keys"),
    h(
      "dl",
      null,
      SHORTCUTS.flatMap(([keys, what]) => [h("dt", null, h("kbd", null, keys)), h("dd", null, what)]),
    ),
    button("Close", () => dialog.close()),
  );
  dialog.showModal();
}

function start() {
  const arms = count(INDEX.arms.length, "arm");
  document.getElementById("summary").textContent =
    `${arms}, ${count(INDEX.runs.length, "run")} · ${INDEX.made.slice(0, 16).replace("T", " ")} · rrl ${INDEX.version}`;
  document.title = `rrl report: ${INDEX.arms.map((arm) => arm.name).join(", ")}`.slice(0, 120);
  document
    .getElementById("tabs")
    .replaceChildren(...TABS.map(([view, label]) => link(label, `#${view}`, { "data-view": view })));
  document.getElementById("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    show();
  });
  document.querySelector("a.skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  document.getElementById("help").addEventListener("click", showKeys);
  const field = document.getElementById("search");
  field.addEventListener("input", () => {
    clearTimeout(start.timer);
    start.timer = setTimeout(() => {
      const { view, options } = place();
      const others = view === "rollouts" ? Object.fromEntries(options) : {};
      history.replaceState(null, "", routeOf("rollouts", { ...others, q: field.value, open: null }));
      show();
    }, 250);
  });
  document.addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  window.addEventListener("hashchange", show);
  show();
}

start();
