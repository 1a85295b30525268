// The memory of states: which rollout a state was cut from, all visits, its end; and from a first solve back to the prompt.

/** `options`: run, key (the state that is shown), sort. */
async function showReplay(main, options) {
  const states = await Promise.all(INDEX.runs.map((_, run) => statesOf(run)));
  const having = INDEX.runs.map((_, run) => run).filter((run) => states[run].states.length);
  if (!having.length) {
    fill(
      main,
      h("h1", null, "Replay"),
      h(
        "p",
        null,
        "No replayed rollouts are on this page: no run replayed states, or none was dumped (run.rollout_freq).",
      ),
    );
    return;
  }
  const run = having.find((each) => INDEX.runs[each].name === options.get("run")) ?? having[0];
  const found = states[run];
  const solved = found.first_solves;
  const key = options.get("key") || (solved[0] || {}).key || found.states[0].key;
  const order = [...found.states].sort((a, b) => b.visits.length - a.visits.length);
  const route = (state) => routeOf("replay", { run: INDEX.runs[run].name, key: state });
  const right = (state) => state.visits.filter(([, , verdict]) => verdict === "right").length;
  const chosen = found.byKey.get(key);
  fill(
    main,
    h("h1", null, "Replay"),
    h(
      "div",
      { class: "controls" },
      choice(
        "Run",
        having.map((each) => [INDEX.runs[each].name, INDEX.runs[each].name]),
        INDEX.runs[run].name,
        (name) => go("replay", { run: name }),
      ),
    ),
    h(
      "p",
      { class: "note" },
      found.recorded
        ? "From states.jsonl: every state, visit and end of the problems that are kept."
        : "Inferred from dumped rollouts: visits are those that were dumped; a state's origin is the last earlier dumped " +
            "rollout that begins with its prefix. Train with records=full to have all of them.",
    ),
    h(
      "div",
      { class: "split" },
      h(
        "section",
        { class: "card" },
        h("h2", null, count(solved.length, "first solve"), " from a state"),
        h("p", { class: "note" }, "Problems whose first right rollout in these records began at a remembered state."),
        h(
          "ol",
          { class: "plain" },
          solved
            .slice(0, 200)
            .map((solve) =>
              h(
                "li",
                null,
                link(
                  [h("span", null, INDEX.problems[solve.p].id), h("span", { class: "note" }, ` step ${solve.step}`)],
                  route(solve.key),
                  { "aria-current": solve.key === key ? "true" : null },
                ),
              ),
            ),
        ),
      ),
      h(
        "section",
        { class: "card", id: "state" },
        h("h2", null, "One state"),
        chosen
          ? [ancestry(run, found, chosen), firstSolve(run, found, chosen), lanes(run, found, chosen.p)]
          : h("p", { class: "notice" }, `No state ${key} is on this page.`),
      ),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", null, count(found.states.length, "state")),
      table(
        ["state", "from", "cut", "visits", "right", "stored", "forgotten"],
        order
          .slice(0, 200)
          .map((state) => [
            link(state.key, route(state.key)),
            state.source || "–",
            short(state.cut),
            short(state.visits.length),
            short(right(state)),
            short(state.stored),
            state.forgotten ? `step ${state.forgotten[0]}: ${state.forgotten[1] || ""}` : "–",
          ]),
        { label: "States" },
      ),
    ),
  );
}

/** The chain from the prompt over every ancestor to a state, and what came of it. */
function ancestry(run, states, last) {
  const chain = [last];
  while (chain[0].parent && states.byKey.has(chain[0].parent) && chain.length < 50)
    chain.unshift(states.byKey.get(chain[0].parent));
  const asked = INDEX.problems[last.p];
  return h(
    "ol",
    { class: "chain" },
    h("li", { class: "node" }, h("b", null, "Prompt of "), link(asked.id, problemRoute(asked.id))),
    chain.map((state) => [originNode(run, state), h("li", { class: "node" }, stateCard(run, states, state))]),
  );
}

/** The first right rollout of a state's problem, where it began at this state. */
function firstSolve(run, states, state) {
  const solve = states.first_solves.find((each) => each.key === state.key);
  return (
    solve &&
    h(
      "p",
      { class: "solve" },
      "First right rollout of the problem: ",
      rolloutLink(run, solve.step, solve.row),
      `, from this state, at step ${solve.step}.`,
    )
  );
}

function originNode(run, state) {
  if (!state.origin)
    return h(
      "li",
      { class: "node faint" },
      state.cut === 0 ? "the prompt itself: nothing was cut" : "the rollout it came from is not on this page",
    );
  const [step, row] = state.origin;
  return h(
    "li",
    { class: "node" },
    "Rollout ",
    rolloutLink(run, step, row),
    state.cut === null ? "" : `, cut after ${count(state.cut, "token")}`,
  );
}

function rolloutLink(run, step, row) {
  const id = rowId(run, "training", step, row);
  const known = everyRow && everyRow.byId.get(id);
  return known
    ? link([verdictSign(known.verdict), ` ${step}.${row}`], sampleRoute(id))
    : h("span", null, `${step}.${row}`, h("span", { class: "note" }, " (not on this page)"));
}

function stateCard(run, states, state) {
  const why = [
    state.source && `kept as ${state.source}`,
    state.score !== null && state.score !== undefined && `score ${short(state.score)}`,
    state.stored !== null && `stored at step ${state.stored}`,
  ].filter(Boolean);
  return h(
    "div",
    { class: "statecard" },
    h(
      "div",
      null,
      link(state.key, routeOf("replay", { run: INDEX.runs[run].name, key: state.key })),
      why.length ? h("span", { class: "note" }, ` ${why.join(", ")}`) : null,
    ),
    state.prefix
      ? h(
          "pre",
          { class: "text small", dir: "auto" },
          h("span", { class: "prefix" }, ...seen(state.prefix.slice(-300))),
        )
      : null,
    h(
      "div",
      { class: "chips" },
      state.visits.slice(0, 200).map(([step, row, verdict]) => {
        const id = rowId(run, "training", step, row);
        const here = everyRow && everyRow.byId.has(id);
        const content = [verdictSign(verdict), h("span", null, `${step}.${row}`)];
        return here
          ? link(content, sampleRoute(id), { class: "chip" })
          : h("span", { class: "chip", title: "visit whose rollout is not on this page" }, content);
      }),
    ),
    h(
      "div",
      { class: "note" },
      `${count(state.visits.length, "visit")}`,
      state.forgotten
        ? `; forgotten at step ${state.forgotten[0]}${state.forgotten[1] ? ` (${state.forgotten[1]})` : ""}`
        : "",
    ),
  );
}
