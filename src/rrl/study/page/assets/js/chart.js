// A figure on the screen: curves by uPlot, what they are under the pointer, and the way from a point to its step.

function theme() {
  return (
    document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")
  );
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The colour of an arm; hollow where its line is dashed. */
function swatch(arm) {
  const colour = colourOf(arm, theme());
  return h("i", {
    class: "swatch",
    style: { background: dashOf(arm).length ? "transparent" : colour, border: `2px solid ${colour}` },
  });
}

/** The figure of a metric, drawn once it is laid out. */
function chart(figure, remove) {
  const place = h("div", { class: "plot", role: "img", "aria-label": described(figure) });
  const readout = h("div", { class: "readout" });
  const file = figure.metric.replace(/[^\w@.-]+/g, "-");
  const card = h(
    "figure",
    { class: "card" },
    h(
      "figcaption",
      null,
      h("div", null, h("h3", null, figure.title), h("code", null, figure.metric)),
      h(
        "span",
        { class: "buttons" },
        button("PNG", async () => download(`${file}.png`, await asPng(asSvg(figure))), {
          class: "quiet",
          "aria-label": `${figure.title} as PNG`,
        }),
        button("SVG", () => download(`${file}.svg`, asSvg(figure).text, "image/svg+xml"), {
          class: "quiet",
          "aria-label": `${figure.title} as SVG`,
        }),
        remove && button("✕", remove, { class: "quiet", "aria-label": `Remove ${figure.title}` }),
      ),
    ),
    place,
    readout,
  );
  sized(place, 240, (width) => draw(figure, place, readout, width));
  return card;
}

/** Makes a plot of a height once its place has a width, and keeps it as wide as its place. */
function sized(place, height, make) {
  let plot = null;
  new ResizeObserver((entries, observer) => {
    if (!place.isConnected) {
      observer.disconnect();
      return;
    }
    const width = Math.floor(entries[0].contentRect.width);
    if (!width) return;
    if (plot) plot.setSize({ width, height });
    else plot = make(width);
  }).observe(place);
}

/** Bounds around values, also where all are equal. */
function flatRange(_, low, high) {
  return low === high ? [Math.min(0, low), Math.max(1, high)] : uPlot.rangeNum(low, high, 0.1, true);
}

/** A figure in words: where each arm ends. */
function described(figure) {
  const ends = figure.arms.map((arm) => {
    const last = arm.mean.filter((value) => value !== null);
    return `${arm.name} from ${short(last[0])} to ${short(last[last.length - 1])}`;
  });
  return `${figure.title} against ${AXES[figure.axis]}: ${ends.join("; ")}`;
}

function draw(figure, place, readout, width) {
  const [series, data, bands] = [[{}], [figure.grid], []];
  const measured = figure.arms.reduce((sum, arm) => sum + arm.curves.length, 0);
  const add = (values, options) => {
    data.push(values);
    series.push({ spanGaps: false, points: { show: false }, ...options });
  };
  for (const arm of figure.arms) {
    const colour = colourOf(arm.number, theme());
    if (arm.low && arm.high) {
      bands.push({ series: [data.length, data.length + 1], fill: `${colour}33` });
      add(arm.high, { stroke: "transparent" });
      add(arm.low, { stroke: "transparent" });
    }
    if (arm.seeds.length > 1) arm.seeds.forEach((seed) => add(seed, { stroke: `${colour}77`, width: 1 }));
    add(arm.mean, {
      stroke: colour,
      width: 2,
      dash: dashOf(arm.number),
      points: { show: measured === 1 && figure.grid.length < 40, size: 5, fill: colour }, // else they are interpolated
    });
  }
  const axis = {
    stroke: cssColour("--muted"),
    grid: { stroke: cssColour("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui",
    size: 34,
  };
  const plot = new uPlot(
    {
      width,
      height: 240,
      series,
      bands,
      scales: {
        x: { time: false },
        y: { range: flatRange },
      },
      legend: { show: false },
      cursor: { points: { show: false }, y: false },
      axes: [
        {
          ...axis,
          label: AXES[figure.axis],
          labelSize: 18,
          labelFont: "12px system-ui",
          values: (_, found) => found.map(tickText),
        },
        { ...axis, size: 52, values: (_, found) => found.map(tickText) },
      ],
      hooks: { setCursor: [(self) => read(figure, self.cursor.idx, readout)] },
    },
    data,
    place,
  );
  plot.over.addEventListener("click", () => pin(figure, plot.cursor.idx, readout));
  return plot;
}

function read(figure, at, readout) {
  if (at === null || at === undefined || readout.dataset.pinned) return;
  fill(
    readout,
    h("span", null, `${tickText(figure.grid[at])} ${AXES[figure.axis]}`),
    ...figure.arms
      .filter((arm) => arm.mean[at] !== null)
      .map((arm) => h("span", null, swatch(arm.number), `${arm.name} ${short(arm.mean[at])}`)),
  );
}

/** From a point of a curve to the nearest steps whose rollouts are here. */
async function pin(figure, at, readout) {
  if (at === null || at === undefined) return;
  const axes = await block("axes");
  const x = figure.grid[at];
  const links = figure.arms
    .flatMap((arm) =>
      arm.curves.map(({ run }) => {
        const xs = axes[run][figure.axis];
        const nearest = xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
        const step = nearestDump(run, axes[run].step[nearest]);
        return step && link(`${INDEX.runs[run].name}, step ${step.step}`, stepRoute(step));
      }),
    )
    .filter(Boolean);
  readout.dataset.pinned = "yes";
  fill(
    readout,
    h("span", null, `Rollouts nearest to ${tickText(x)} ${AXES[figure.axis]}:`),
    ...(links.length ? links : ["none were dumped (run.rollout_freq)"]),
    button(
      "✕",
      () => {
        delete readout.dataset.pinned;
        fill(readout);
      },
      { class: "quiet", "aria-label": "Close" },
    ),
  );
}

function nearestDump(run, step) {
  const dumps = INDEX.steps.filter((each) => each.run === run && each.kept && each.source === "training");
  return dumps.reduce(
    (best, each) => (!best || Math.abs(each.step - step) < Math.abs(best.step - step) ? each : best),
    null,
  );
}
