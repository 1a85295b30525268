// The life of a problem's states as a figure: a lane for each state, from its origin over its visits to its end.

const ON_WHITE = {
  ink: "#1b2430",
  muted: "#566273",
  line: "#dfe3e8",
  card: "#ffffff",
  accent: "#0b5cad",
  right: "#0a7a3e",
  wrong: "#b3261e",
  unparseable: "#7a5b00",
  error: "#7b2fa0",
  other: "#566273",
};
const LANE = { height: 34, left: 150, right: 24, top: 40, width: 720, most: 20 };

/** The figure of all states of problem `p` in a run; null without states. */
function lanes(run, states, p) {
  const own = states.states
    .filter((state) => state.p === p && (state.visits.length || state.stored !== null))
    .sort((a, b) => firstStep(a) - firstStep(b))
    .slice(0, LANE.most);
  if (!own.length) return null;
  const solve = states.first_solves.find((each) => each.p === p);
  const title = `States of ${INDEX.problems[p].id} in ${INDEX.runs[run].name}`;
  const drawn = drawLanes(title, own, solve, (name) => cssColour(`--${name}`));
  const file = () => {
    const root = drawLanes(title, own, solve, (name) => ON_WHITE[name]);
    return { text: new XMLSerializer().serializeToString(root), width: LANE.width, height: heightOf(own) };
  };
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", `${title}: ${own.map(told).join("; ")}`);
  return h(
    "figure",
    { class: "lanes" },
    h(
      "figcaption",
      null,
      h(
        "span",
        { class: "note" },
        "Above a lane: right visits of a step, or all where none is right. ◆ cut from a rollout, ■ forgotten",
        solve ? ", ringed: the first right rollout of the problem." : ".",
      ),
      h(
        "span",
        { class: "buttons" },
        button("PNG", async () => download("states.png", await asPng(file())), {
          class: "quiet",
          "aria-label": `${title} as PNG`,
        }),
        button("SVG", () => download("states.svg", file().text, "image/svg+xml"), {
          class: "quiet",
          "aria-label": `${title} as SVG`,
        }),
      ),
    ),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, drawn),
  );
}

function heightOf(own) {
  return LANE.top + LANE.height * own.length + 34;
}

function firstStep(state) {
  return Math.min(
    ...[state.stored, state.origin && state.origin[0], ...state.visits.map(([step]) => step)].filter(
      (step) => step !== null,
    ),
  );
}

function lastStep(state) {
  return Math.max(
    ...[state.stored, ...state.visits.map(([step]) => step), state.forgotten && state.forgotten[0]].filter(
      (step) => step !== null,
    ),
  );
}

function told(state) {
  const right = state.visits.filter(([, , verdict]) => verdict === "right").length;
  const end = state.forgotten ? `, forgotten at step ${state.forgotten[0]}` : "";
  return `${state.key}, ${count(state.visits.length, "visit")}, ${right} right${end}`;
}

function drawLanes(title, own, solve, colour) {
  const [start, end] = [Math.min(...own.map(firstStep)), Math.max(...own.map(lastStep))];
  const height = heightOf(own);
  const px = (step) => LANE.left + ((LANE.width - LANE.left - LANE.right) * (step - start)) / (end - start || 1);
  const root = svg("svg", {
    xmlns: SVG,
    viewBox: `0 0 ${LANE.width} ${height}`,
    width: LANE.width,
    height,
    "font-family": "sans-serif",
    "font-size": 12,
  });
  const text = (x, y, label, more) => {
    const node = svg("text", { x, y, fill: colour("ink"), ...more });
    node.textContent = label;
    root.append(node);
  };
  root.append(svg("rect", { width: LANE.width, height, fill: colour("card") }));
  text(0, 16, title, { "font-weight": 600, "font-size": 13 });
  const floor = LANE.top + LANE.height * own.length;
  for (const step of ticks(start, end, 10).filter(Number.isInteger)) {
    root.append(svg("line", { x1: px(step), x2: px(step), y1: LANE.top - 6, y2: floor, stroke: colour("line") }));
    text(px(step), floor + 14, String(step), { "text-anchor": "middle", fill: colour("muted") });
  }
  text((LANE.left + LANE.width - LANE.right) / 2, floor + 30, "step", {
    "text-anchor": "middle",
    fill: colour("muted"),
  });
  own.forEach((state, lane) => {
    const y = LANE.top + LANE.height * lane + LANE.height / 2;
    const name = state.key.split("@").pop();
    text(0, y + 4, `@${name}${state.cut === null ? "" : `, ${count(state.cut, "token")}`}`, { fill: colour("muted") });
    root.append(
      svg("line", {
        x1: px(firstStep(state)),
        x2: px(state.forgotten ? state.forgotten[0] : lastStep(state)),
        y1: y,
        y2: y,
        stroke: colour("accent"),
        "stroke-width": 2,
      }),
    );
    if (state.origin) text(px(state.origin[0]), y + 4, "◆", { "text-anchor": "middle", fill: colour("accent") });
    if (state.forgotten) text(px(state.forgotten[0]) + 7, y + 4, "■", { fill: colour("muted"), "font-size": 9 });
    drawVisits(root, text, state, solve, y, px, colour);
  });
  return root;
}

/** A dot for the visits of each step, and their number above it. */
function drawVisits(root, text, state, solve, y, px, colour) {
  const steps = new Map();
  for (const [step, row, verdict] of state.visits) steps.set(step, [...(steps.get(step) || []), [row, verdict]]);
  for (const [step, visits] of steps) {
    const right = visits.filter(([, verdict]) => verdict === "right").length;
    const best = right ? "right" : visits.some(([, verdict]) => verdict === "wrong") ? "wrong" : visits[0][1];
    const [sign] = VERDICTS[best] || ["·"];
    const label = visits.length === 1 ? sign : `${sign}${right || visits.length}/${visits.length}`;
    text(px(step), y - 5, label, {
      "text-anchor": "middle",
      fill: colour(VERDICTS[best] ? best : "other"),
      "font-weight": 700,
      "font-size": 11,
    });
    root.append(svg("circle", { cx: px(step), cy: y, r: 3.5, fill: colour(VERDICTS[best] ? best : "other") }));
    if (solve && solve.key === state.key && solve.step === step) {
      root.append(
        svg("circle", { cx: px(step), cy: y, r: 7, fill: "none", stroke: colour("right"), "stroke-width": 2 }),
      );
    }
  }
}
