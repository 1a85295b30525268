// Numbers along a response: a curve for each overlay that is on; a click on one chooses the token below.

/** What unfolds to the curves of `series`; its `show` takes the names of those that are on. */
function strips(series, select) {
  const place = h("div");
  let names = [];
  const draw = () =>
    fold.open &&
    fill(
      place,
      names.map((name) => strip(name, series[name], select)),
    );
  const fold = h(
    "details",
    { class: "strips", on: { toggle: draw } },
    h("summary", null, "Curves along the response"),
    place,
  );
  fold.show = (on) => {
    names = on.filter((name) => name !== "mask");
    fold.hidden = !names.length;
    draw();
  };
  return fold;
}

function strip(name, values, select) {
  const { label, hue } = OVERLAYS[name];
  const there = values.filter((value) => value !== null);
  const about = `${label} along the response: from ${short(Math.min(...there))} to ${short(Math.max(...there))}`;
  const place = h("div", { class: "strip", role: "img", "aria-label": about });
  const axis = {
    stroke: cssColour("--muted"),
    grid: { stroke: cssColour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  sized(place, 96, (width) => {
    const plot = new uPlot(
      {
        width,
        height: 96,
        series: [
          {},
          {
            stroke: `hsl(${hue[0]} ${hue[1]}% ${theme() === "dark" ? 65 : 35}%)`,
            width: 1.2,
            points: { show: values.length < 60, size: 4 },
          },
        ],
        scales: { x: { time: false }, y: { range: flatRange } },
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        axes: [
          { ...axis, size: 22 },
          { ...axis, size: 52, values: (_, found) => found.map(tickText) },
        ],
      },
      [values.map((_, i) => i), values],
      place,
    );
    plot.over.addEventListener("click", () => plot.cursor.idx !== null && select(plot.cursor.idx));
    return plot;
  });
  return h("div", null, h("div", { class: "note" }, label), place);
}
