// One rollout: its problem, its response token by token, its siblings, where its start came from and what was cut from it.

async function showSample(place, id, { pattern = null, token = null, close = null } = {}) {
  const found = await rollout(id);
  if (!place.isConnected) return;
  if (!found) {
    fill(
      place,
      h(
        "p",
        { class: "notice" },
        `No rollout ${id} is on this page: ${keptText()}. It may be in the run's rollouts/ folder.`,
      ),
    );
    return;
  }
  const { row, full, problem: asked } = found;
  const same = await siblings(row);
  const prompt = promptOf(row.run, asked);
  fill(
    place,
    h(
      "div",
      { class: "heading" },
      close && button("← List", close, { class: "quiet back" }),
      h("h2", null, verdictSign(row.verdict), " ", id),
      h(
        "span",
        { class: "buttons" },
        copier(prompt.exact ? "Copy prompt" : "Copy question", prompt.text),
        copier("Copy response", full.response),
        copier("Copy link", () => location.href),
      ),
    ),
    h(
      "p",
      { class: "facts" },
      ...facts(row)
        .flatMap((fact) => [fact, " · "])
        .slice(0, -1),
      " · policy ",
      short(full.version),
      " · ",
      link("step", stepRoute(row)),
      " · ",
      link("problem", problemRoute(asked.id)),
    ),
    part(prompt.exact ? "Prompt" : "Question", textBlock(prompt.text, pattern)),
    part(
      "Response",
      full.prefix
        ? h(
            "p",
            { class: "note" },
            h("span", { class: "prefix" }, "Replayed prefix"),
            `: ${count((full.prefix_tokens || []).length, "token")} of context, neither paid nor trained.`,
          )
        : null,
      tokenView(full, { pattern, at: token, cuts: await cutsOf(row, full) }),
    ),
    part(
      "Verdict",
      h(
        "p",
        null,
        verdictSign(row.verdict),
        ` ${(VERDICTS[row.verdict] || ["", row.verdict])[1]}`,
        row.outcome ? ` (${row.outcome})` : "",
        `, score ${short(row.score)}`,
      ),
      asked.answer ? h("div", null, h("h4", null, "Expected"), textBlock(asked.answer)) : null,
      full.evidence && Object.keys(full.evidence).length
        ? h(
            "details",
            null,
            h("summary", null, "Evidence of the verifier"),
            textBlock(JSON.stringify(full.evidence, null, 1)),
          )
        : null,
      asked.reference && asked.reference !== asked.answer
        ? h("details", null, h("summary", null, "Reference"), textBlock(asked.reference))
        : null,
    ),
    part(`All ${same.length} of this problem in this step`, chips(same, id)),
    await lineagePart(row, full),
  );
}

/** Where states were cut from a rollout: after which of its new tokens (-1: before the first), and how to show each. */
async function cutsOf(row, full) {
  if (row.source !== "training") return [];
  const cut = (await statesOf(row.run)).byOrigin.get(`${row.step}.${row.row}`) || [];
  return cut
    .filter((state) => state.cut !== null)
    .map((state) => ({
      after: state.cut - (full.prefix_tokens || []).length - 1,
      mark: link("✂", routeOf("replay", { run: INDEX.runs[row.run].name, key: state.key }), {
        class: "cut",
        title: `cut here: state ${state.key}`,
        "aria-label": `State ${state.key} was cut here`,
      }),
    }));
}

function part(title, ...children) {
  return h("section", { class: "part" }, h("h3", null, title), ...children);
}

/** The text that the model read, where the records tell it exactly. */
function promptOf(run, asked) {
  const template = INDEX.runs[run].template;
  if (asked.turns && asked.turns.length)
    return { text: asked.turns.map((turn) => `${turn.role}: ${turn.content}`).join("\n\n"), exact: false };
  if (!template || template.split("{question}").length !== 2) return { text: asked.question || "", exact: false };
  return { text: template.split("{question}").join(asked.question || ""), exact: true };
}

/** Rollouts as signs, each a link. */
function chips(rows, open) {
  return h(
    "div",
    { class: "chips" },
    rows.map((row) =>
      link(
        [
          verdictSign(row.verdict),
          h("span", null, `${row.step}.${row.row}`),
          row.replayed && h("b", { title: "replayed start" }, "↻"),
        ],
        sampleRoute(row.id),
        {
          class: "chip",
          "aria-current": row.id === open ? "true" : null,
          title: facts(row)
            .map((fact) => fact.textContent || fact)
            .join(" · "),
        },
      ),
    ),
  );
}

/** Where this rollout's start came from, back to the prompt, and the states that were cut from it. */
async function lineagePart(row, full) {
  if (row.source !== "training") return null;
  const states = await statesOf(row.run);
  const cut = states.byOrigin.get(`${row.step}.${row.row}`) || [];
  if (!full.replayed_from && !cut.length) return null;
  const start = states.byKey.get(full.replayed_from);
  return part(
    "Lineage",
    full.replayed_from
      ? start
        ? ancestry(row.run, states, start)
        : h("p", null, `It began at state ${full.replayed_from}, of which nothing else was recorded.`)
      : null,
    cut.length
      ? h(
          "div",
          null,
          h("h4", null, "Cut from this rollout"),
          cut.map((state) => stateCard(row.run, states, state)),
        )
      : null,
  );
}
