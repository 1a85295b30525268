// Figures as data (arms, seeds, bands over one axis), and as SVG and PNG files.

const AXES = { step: "steps", generated: "generated tokens", trained: "trained tokens", seconds: "seconds" };
const NAMES = {
  "critic/score/fresh/mean": "Score of fresh starts",
  "critic/score/mean": "Score",
  "response_length/mean": "Length of responses (tokens)",
  "response_length/clip_ratio": "Share of truncated responses",
  "actor/entropy": "Entropy (nats a token)",
  "actor/ref_kl": "KL to the reference (nats)",
  "replay/success_rate": "Success rate of replayed starts",
  "replay/buffer_size": "Remembered states",
  "replay/first_solves": "First solves by replay",
  "timing_s/step": "Seconds of a step",
};
const PREFERRED = Object.keys(NAMES);
const PALETTE = {
  light: ["#0059a8", "#b83a00", "#00704a", "#8a3ca8", "#8a6100", "#b0105f", "#3f5a66", "#5b4bd6"],
  dark: ["#6cb6ff", "#ff9d5c", "#4fd6a0", "#d79bf0", "#e8c252", "#ff8fbe", "#a9c3cf", "#a99bff"],
};
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const MOST_POINTS = 400;

function metricTitle(name) {
  const [kind, mode, ...level] = name.split("/");
  if (kind !== "accuracy") return NAMES[name] || name;
  return `Held-out accuracy, ${mode}${level.length ? `, level ${level.join("/")}` : ""}`;
}

function colourOf(arm, theme) {
  return PALETTE[theme][arm % PALETTE[theme].length];
}

function dashOf(arm) {
  return DASHES[Math.floor(arm / PALETTE.light.length) % DASHES.length];
}

/**
 * A metric over an axis: a common grid, and for each arm its seeds on it, their mean where all have a value, and a band:
 * between the lowest and the highest seed or, of a single one, its 95 % interval. Numbers of training are averaged over
 * `smooth` (a share of the axis) around each point; accuracies never are.
 */
async function figureOf(metric, axis, arms, runs, smooth) {
  const [axes, columns] = await Promise.all([block("axes"), block(`metric/${metric}`)]);
  const drawn = arms
    .map((number) => ({
      number,
      name: INDEX.arms[number].name,
      curves: INDEX.arms[number].runs
        .filter((run) => runs.has(run) && columns[run])
        .map((run) => ({ run, x: columns[run].at.map((i) => axes[run][axis][i]), ...columns[run] })),
    }))
    .filter((arm) => arm.curves.length);
  const smoothed = smooth > 0 && !metric.startsWith("accuracy/");
  if (smoothed) for (const arm of drawn) for (const curve of arm.curves) curve.y = averaged(curve.x, curve.y, smooth);
  const grid = gridOf(drawn.flatMap((arm) => arm.curves.map((curve) => curve.x)));
  for (const arm of drawn) {
    arm.seeds = arm.curves.map((curve) => grid.map((x) => heightAt(curve.x, curve.y, x)));
    const single = arm.curves.length === 1 ? arm.curves[0] : null;
    const over = (combine) =>
      grid.map((_, i) => {
        const values = arm.seeds.map((seed) => seed[i]);
        return values.includes(null) ? null : combine(values);
      });
    arm.mean = over((values) => values.reduce((a, b) => a + b, 0) / values.length);
    arm.low = single
      ? single.low && grid.map((x) => heightAt(single.x, single.low, x))
      : over((values) => Math.min(...values));
    arm.high = single
      ? single.high && grid.map((x) => heightAt(single.x, single.high, x))
      : over((values) => Math.max(...values));
  }
  const title = metricTitle(metric) + (smoothed ? `, averaged over ${100 * smooth} % of the axis` : "");
  return { metric, title, axis, grid, arms: drawn };
}

/** The mean of all points at most half of `share` of the axis away from each. */
function averaged(xs, ys, share) {
  const reach = (share * (xs[xs.length - 1] - xs[0])) / 2;
  let [first, last, sum] = [0, 0, 0];
  return xs.map((x) => {
    while (last < xs.length && xs[last] <= x + reach) sum += ys[last++];
    while (xs[first] < x - reach) sum -= ys[first++];
    return sum / (last - first);
  });
}

/** All abscissas in order or, where these are many, evenly spaced ones. */
function gridOf(all) {
  const xs = [...new Set(all.flat())].sort((a, b) => a - b);
  if (xs.length <= MOST_POINTS) return xs;
  const [low, high] = [xs[0], xs[xs.length - 1]];
  return Array.from({ length: MOST_POINTS }, (_, i) => low + ((high - low) * i) / (MOST_POINTS - 1));
}

/** The height of a curve, interpolated; null outside of it. */
function heightAt(xs, ys, x) {
  if (!xs.length || x < xs[0] || x > xs[xs.length - 1]) return null;
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  if (xs[high] <= x) return ys[high];
  return ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / (xs[high] - xs[low]);
}

/** Round numbers between two bounds. */
function ticks(low, high, most = 6) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= most);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** Numbers at an axis: 20k, 1.5M. */
function tickText(value) {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ]) {
    if (Math.abs(value) >= size) return `${Number((value / (unit === "k" ? 1e3 : size)).toPrecision(4))}${unit}`;
  }
  return String(Number(value.toPrecision(4)));
}

/** The figure as a picture for papers and slides: on white, with its legend. */
function asSvg(figure) {
  const [width, height, left, right, top, bottom] = [640, 420 + 18 * Math.ceil(figure.arms.length / 2), 62, 16, 40, 52];
  const legendRows = Math.ceil(figure.arms.length / 2);
  const floor = height - bottom - 18 * legendRows;
  const values = figure.arms
    .flatMap((arm) => [arm.low, arm.high, ...arm.seeds].filter(Boolean).flat())
    .filter((v) => v !== null);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const [start, end] = [figure.grid[0], figure.grid[figure.grid.length - 1]];
  const px = (x) => left + ((width - left - right) * (x - start)) / (end - start || 1);
  const py = (y) => floor - ((floor - top) * (y - low)) / (high - low);
  const text = (x, y, label, more) => {
    const node = svg("text", { x, y, "font-size": 12, fill: "#222", ...more });
    node.textContent = label;
    return node;
  };
  const root = svg("svg", {
    xmlns: SVG,
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    "font-family": "sans-serif",
  });
  root.append(
    svg("rect", { width, height, fill: "#fff" }),
    text(left, 22, figure.title, { "font-size": 15, "font-weight": 600 }),
  );
  for (const y of ticks(low, high)) {
    root.append(
      svg("line", { x1: left, x2: width - right, y1: py(y), y2: py(y), stroke: "#ddd" }),
      text(left - 6, py(y) + 4, tickText(y), { "text-anchor": "end" }),
    );
  }
  for (const x of ticks(start, end)) root.append(text(px(x), floor + 18, tickText(x), { "text-anchor": "middle" }));
  root.append(text((left + width - right) / 2, floor + 38, AXES[figure.axis], { "text-anchor": "middle" }));
  figure.arms.forEach((arm, place) => {
    const colour = colourOf(arm.number, "light");
    const path = (ys) =>
      figure.grid
        .map((x, i) => (ys[i] === null ? null : `${px(x).toFixed(1)},${py(ys[i]).toFixed(1)}`))
        .filter(Boolean);
    if (arm.low && arm.high) {
      root.append(
        svg("polygon", {
          points: [...path(arm.high), ...path(arm.low).reverse()].join(" "),
          fill: colour,
          "fill-opacity": 0.15,
        }),
      );
    }
    if (arm.seeds.length > 1) {
      arm.seeds.forEach((seed) =>
        root.append(
          svg("polyline", { points: path(seed).join(" "), fill: "none", stroke: colour, "stroke-opacity": 0.35 }),
        ),
      );
    }
    const line = { fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashOf(arm.number).join(" ") };
    const [x, y] = [left + (place % 2) * 280, height - 14 - 18 * (legendRows - 1 - Math.floor(place / 2))];
    root.append(
      svg("polyline", { points: path(arm.mean).join(" "), ...line }),
      svg("line", { x1: x, x2: x + 22, y1: y - 4, y2: y - 4, ...line }),
      text(x + 28, y, `${arm.name} (${count(arm.seeds.length, "seed")})`),
    );
  });
  return { text: new XMLSerializer().serializeToString(root), width, height };
}

/** The same picture in pixels, at twice its size, as a data address. */
async function asPng(picture) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture.text)}`;
  await image.decode();
  const canvas = h("canvas", { width: 2 * picture.width, height: 2 * picture.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}
