// From a run to its steps, from a step to its problems with all siblings, and a problem across steps and runs.

function dumpsOf(run) {
  return INDEX.steps.filter((step) => step.run === run).sort((a, b) => a.step - b.step);
}

/** All steps of a run whose responses were dumped; `options`: run. */
function showSteps(main, options) {
  const run = runByName.has(options.get("run"))
    ? runByName.get(options.get("run"))
    : INDEX.runs.findIndex((each) => each.of);
  const names = INDEX.runs.map((each) => each.name);
  const rows =
    run < 0
      ? []
      : dumpsOf(run).map((step) => [
          step.kept ? link(`step ${step.step}`, stepRoute(step)) : `step ${step.step}`,
          step.source,
          short(step.score),
          verdictBar(step.verdicts),
          `${short(step.kept)} of ${short(step.of)}`,
        ]);
  fill(
    main,
    h("h1", null, "Steps"),
    h(
      "div",
      { class: "controls" },
      choice(
        "Run",
        names.map((name) => [name, name]),
        names[Math.max(0, run)],
        (name) => go("steps", { run: name }),
      ),
    ),
    rows.length
      ? h(
          "section",
          { class: "card" },
          table(["step", "from", "mean score", "verdicts of all", "kept"], rows, { label: "Steps" }),
        )
      : h("p", null, "No rollouts of this run were dumped; train with run.rollout_freq=N."),
    h("p", { class: "note" }, `Kept by this rule: ${INDEX.rule}.`),
  );
}

/** One step: its numbers, and every problem with all of its rollouts. `path`: run, source, step. */
async function showStep(main, [name, source, number]) {
  const run = runByName.get(name);
  const step = INDEX.steps.find((each) => each.run === run && each.source === source && each.step === Number(number));
  if (!step) {
    fill(main, h("h1", null, "Step"), h("p", { class: "notice" }, `No step ${number} of ${name} is on this page.`));
    return;
  }
  const rows = (await allRows()).filter((row) => row.run === run && row.source === source && row.step === step.step);
  const groups = new Map();
  for (const row of rows) groups.set(row.p, [...(groups.get(row.p) || []), row]);
  const mixed = (group) => new Set(group.map((row) => row.verdict)).size;
  const order = [...groups.entries()].sort(([, a], [, b]) => mixed(b) - mixed(a) || b.length - a.length);
  const dumps = dumpsOf(run).filter((each) => each.source === source && each.kept);
  const at = dumps.indexOf(step);
  const list = h("div", { class: "groups" });
  let limit = 0;
  const next = button("Show more", () => extend());
  const extend = async () => {
    const part = order.slice(limit, limit + 60);
    limit += 60;
    for (const [p, group] of part) list.append(problemCard(await problem(p), group));
    next.hidden = limit >= order.length;
  };
  fill(
    main,
    h("h1", null, `${name}, step ${step.step}`, source === "evaluation" ? " (evaluation)" : ""),
    h(
      "p",
      { class: "controls" },
      dumps[at - 1] && link(`← step ${dumps[at - 1].step}`, stepRoute(dumps[at - 1])),
      dumps[at + 1] && link(`step ${dumps[at + 1].step} →`, stepRoute(dumps[at + 1])),
      link("all steps", routeOf("steps", { run: name })),
    ),
    verdictBar(step.verdicts),
    h(
      "p",
      { class: "note" },
      `${short(step.kept)} of ${short(step.of)} rollouts kept, by this rule: ${INDEX.rule}. `,
      `The bar is of all ${short(step.of)}.`,
    ),
    h("details", null, h("summary", null, "Numbers of this step"), await numbersOf(run, step.step)),
    h("h2", null, count(order.length, "problem")),
    list,
    next,
  );
  await extend();
}

function problemCard(asked, group) {
  return h(
    "section",
    { class: "card" },
    h(
      "div",
      { class: "heading" },
      h("h3", null, link(asked.id, problemRoute(asked.id))),
      asked.level && h("span", { class: "note" }, levelText(asked.level)),
    ),
    textBlock((asked.question || "").slice(0, 400)),
    chips(group, null),
  );
}

async function numbersOf(run, step) {
  const axes = (await block("axes"))[run];
  const place = axes.step.indexOf(step);
  const rows = [];
  for (const name of metricNames()) {
    const column = (await block(`metric/${name}`))[run];
    const i = column ? column.at.indexOf(place) : -1;
    if (i >= 0) rows.push([h("code", null, name), short(column.y[i], 4)]);
  }
  return rows.length
    ? table(["metric", "value"], rows, { label: `Metrics of step ${step}` })
    : h("p", null, "No numbers of this step are on this page.");
}

/** The same problem in all runs and steps; without a name, a list of those that changed most. */
async function showProblem(main, [id], options) {
  const rows = await allRows();
  if (!id) {
    await showProblems(main, rows, options);
    return;
  }
  const number = problemById.get(id);
  if (number === undefined) {
    fill(
      main,
      h("h1", null, "Problem"),
      h("p", { class: "notice" }, `No problem ${id} is on this page. Kept: ${keptText()}.`),
    );
    return;
  }
  const asked = await problem(number);
  const here = rows.filter((row) => row.p === number);
  const steps = [...new Set(here.map((row) => row.step))].sort((a, b) => a - b);
  const runs = [...new Set(here.map((row) => row.run))].sort((a, b) => a - b);
  const cell = (run, step) =>
    h("span", { class: "signs" }, here.filter((row) => row.run === run && row.step === step).map(signLink));
  const numbers = [...problemById.keys()];
  fill(
    main,
    h("h1", null, id),
    h(
      "p",
      { class: "note" },
      asked.level ? `${levelText(asked.level)} · ` : "",
      link("previous problem (p)", problemRoute(numbers[number - 1] || numbers[numbers.length - 1])),
      " · ",
      link("next problem (n)", problemRoute(numbers[number + 1] || numbers[0])),
      " · ",
      link("as a list", routeOf("rollouts", { problem: id })),
    ),
    textBlock(asked.question || ""),
    asked.answer && h("div", null, h("h4", null, "Expected"), textBlock(asked.answer)),
    h(
      "section",
      { class: "card" },
      h("h2", null, "Across steps and runs"),
      table(
        ["run", ...steps.map((step) => `step ${step}`)],
        runs.map((run) => [INDEX.runs[run].name, ...steps.map((step) => cell(run, step))]),
        { label: "Rollouts by run and step" },
      ),
    ),
    await Promise.all(
      runs.map(async (run) => {
        const drawn = lanes(run, await statesOf(run), number);
        return drawn && h("section", { class: "card" }, drawn);
      }),
    ),
    await beforeAfter(here, runs),
  );
}

/** The first and the last response of each run, side by side. */
async function beforeAfter(here, runs) {
  const cards = [];
  for (const run of runs) {
    const own = here.filter((row) => row.run === run).sort((a, b) => a.step - b.step || a.row - b.row);
    const ends = own.length > 1 ? [own[0], own[own.length - 1]] : own;
    for (const row of ends) {
      const { full } = await rollout(row.id);
      cards.push(
        h(
          "section",
          { class: "card" },
          h("h3", null, verdictSign(row.verdict), " ", link(row.id, sampleRoute(row.id))),
          h(
            "pre",
            { class: "text", dir: "auto" },
            full.prefix && h("span", { class: "prefix" }, ...seen(full.prefix)),
            ...seen(newText(full)),
          ),
        ),
      );
    }
  }
  return h("div", null, h("h2", null, "First and last of each run"), h("div", { class: "pairs" }, cards));
}

const PROBLEM_SORTS = { rollouts: "most rollouts", gained: "gained most", lost: "lost most", right: "share right" };

/** A list of problems; `options`: sort (a key of PROBLEM_SORTS). */
async function showProblems(main, rows, options) {
  const found = new Map();
  for (const row of rows) found.set(row.p, [...(found.get(row.p) || []), row]);
  const all = [...found].map(([p, group]) => ({
    p,
    rollouts: group.length,
    right: shareRight(group),
    gained: gain(group),
    group,
  }));
  const sort = PROBLEM_SORTS[options.get("sort")] ? options.get("sort") : "rollouts";
  const height = ({ gained, ...each }) =>
    sort === "lost" ? -(gained ?? Infinity) : sort === "gained" ? (gained ?? -Infinity) : each[sort];
  all.sort((a, b) => height(b) - height(a) || b.rollouts - a.rollouts);
  const lines = all.slice(0, 300).map(({ p, rollouts, right, gained, group }) => {
    const verdicts = {};
    for (const row of group) verdicts[row.verdict] = (verdicts[row.verdict] || 0) + 1;
    const { id, level } = INDEX.problems[p];
    return [
      link(id, problemRoute(id)),
      level,
      short(rollouts),
      short(right, 2),
      short(gained, 2),
      verdictBar(verdicts),
    ];
  });
  fill(
    main,
    h("h1", null, "Problems"),
    h(
      "div",
      { class: "controls" },
      choice("Order", Object.entries(PROBLEM_SORTS), sort, (value) => go("problem", { sort: value })),
    ),
    h(
      "p",
      { class: "note" },
      `${count(all.length, "problem")}${all.length > 300 ? ", the first 300" : ""}. Gained: share right in the later half of its steps minus the earlier half. `,
      `Kept: ${keptText()}.`,
    ),
    h(
      "section",
      { class: "card" },
      table(["problem", "level", "rollouts", "share right", "gained", "verdicts"], lines, { label: "Problems" }),
    ),
  );
}

function shareRight(group) {
  return group.filter((row) => row.verdict === "right").length / group.length;
}

/** The share right in the later half of a problem's steps minus that in the earlier half; null with a single step. */
function gain(group) {
  const steps = group.map((row) => row.step);
  const middle = (Math.min(...steps) + Math.max(...steps)) / 2;
  const [early, late] = [group.filter((row) => row.step <= middle), group.filter((row) => row.step > middle)];
  return early.length && late.length ? shareRight(late) - shareRight(early) : null;
}
