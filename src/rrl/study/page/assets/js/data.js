// The page's data: the index is read at once, every other block is unpacked when it is first needed.

const INDEX = JSON.parse(document.getElementById("index").textContent);
const BLOCKS = new Map();
for (const element of document.querySelectorAll("script[data-block]")) BLOCKS.set(element.dataset.block, element);
const unpacked = new Map();
const KEPT_BLOCKS = 400;

/** The content of a block, or null where there is none; the latest few hundred stay unpacked. */
function block(name) {
  if (!BLOCKS.has(name)) return Promise.resolve(null);
  const known = unpacked.get(name);
  unpacked.delete(name);
  const content = known || unpack(BLOCKS.get(name).textContent);
  unpacked.set(name, content);
  if (unpacked.size > KEPT_BLOCKS) unpacked.delete(unpacked.keys().next().value);
  return content;
}

async function unpack(text) {
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const armOf = [];
INDEX.arms.forEach((arm, number) =>
  arm.runs.forEach((run) => {
    armOf[run] = number;
  }),
);
const runByName = new Map(INDEX.runs.map((run, number) => [run.name, number]));
const problemById = new Map(INDEX.problems.map((problem, number) => [problem.id, number]));

let everyRow = null;

/** What all rollouts can be sorted and filtered by, as objects; each has its `id`. */
async function allRows() {
  if (everyRow === null) {
    const columns = (await block("rows")) || {};
    const names = Object.keys(columns);
    everyRow = (columns.run || []).map((_, i) => {
      const row = Object.fromEntries(names.map((name) => [name, columns[name][i]]));
      row.id = rowId(row.run, row.source, row.step, row.row);
      row.level = INDEX.problems[row.p].level;
      return row;
    });
    everyRow.byId = new Map(everyRow.map((row) => [row.id, row]));
  }
  return everyRow;
}

/** A rollout's id: its run, its step and its row in the file; `eval-` marks an evaluation's. */
function rowId(run, source, step, row) {
  return `${INDEX.runs[run].name}/${source === "training" ? "" : "eval-"}${step}.${row}`;
}

/** Everything about a rollout: `row` as in allRows, `full` as recorded, `problem` with its texts. */
async function rollout(id) {
  const row = (await allRows()).byId.get(id);
  if (!row) return null;
  const rows = await block(`rollouts/${row.run}/${row.source}/${row.step}`);
  return { row, full: rows.find((each) => each.r === row.row), problem: await problem(row.p) };
}

async function problem(number) {
  const texts = (await block(`problems/${Math.floor(number / 100)}`))[number % 100];
  return { ...INDEX.problems[number], ...texts };
}

/** Rows that start at the same problem in the same step of the same run. */
async function siblings(row) {
  return (await allRows()).filter(
    (other) => other.p === row.p && other.run === row.run && other.step === row.step && other.source === row.source,
  );
}

/** The states of a run by key, with what was cut from which rollout. */
async function statesOf(run) {
  const found = (await block(`states/${run}`)) || { recorded: false, states: [], first_solves: [] };
  if (!found.byKey) {
    found.byKey = new Map(found.states.map((state) => [state.key, state]));
    found.byOrigin = new Map();
    for (const state of found.states) {
      if (!state.origin) continue;
      const origin = state.origin.join(".");
      found.byOrigin.set(origin, [...(found.byOrigin.get(origin) || []), state]);
    }
  }
  return found;
}
