// The charts of a board: rows of the models shown, drawn when they come into view and again when something changes.
const board = window.scisciBoard;
const specs = JSON.parse(document.getElementById("charts").textContent);
const { bands, compute } = JSON.parse(document.getElementById("rows").textContent);
const here = document.currentScript.src;
const BEST_LISTED = 12;

function load(source) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: source, onload: done, onerror: () => failed(new Error(`cannot load ${source}`)) });
    document.head.append(script);
  });
}

let loading;
function libraries() {
  loading ??= Promise.all([load(here.replace("charts.js", "vega.js")), load("points.js")]);
  return loading;
}

// --- rows

const floor = (low, value) => Math.max(low, value / 30); // an interval's end that a log axis can show

function entryRows(panelled) {
  return board.entries.flatMap((entry, i) => {
    if (!board.kept()[i]) return [];
    const kind = board.on.has(entry.slug) ? "shown" : "other";
    const about = { kind, model: entry.label, params: entry.params };
    return board.splits.flatMap((split) => panelled(entry, split).map((row) => ({ ...about, panel: split.label, ...row })));
  });
}

function computeRows() {
  return entryRows((entry, split) => {
    const [y, low, high] = entry.scores[split.name] ?? [];
    return entry.flops && y > 0 ? [{ x: entry.flops, y, low: floor(low, y), high }] : [];
  });
}

function shiftRows() {
  const rows = entryRows((entry, split) => {
    const x = entry.scores[board.splits[0].name]?.[0];
    const [y, low, high] = entry.scores[split.name] ?? [];
    return split !== board.splits[0] && x > 0 && y > 0 ? [{ x, y, low: floor(low, y), high }] : [];
  });
  const values = rows.flatMap((row) => [row.x, row.y]);
  const ends = values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [];
  const panels = board.splits.slice(1).map((split) => split.label);
  const equal = panels.flatMap((panel) => ends.map((at) => ({ kind: "equal", panel, x: at, y: at })));
  return [...rows, ...equal, ...bands.map((row) => ({ kind: "band", ...row }))];
}

function scalingRows(axis) {
  const rows = [];
  const groups = new Map(); // solid marks by model, panel and x, for the lines through their means
  for (const [at, run, split, size, params, data, flops, y, low, high] of window.scisciPoints) {
    const entry = board.entries[at];
    const x = { params, data, flops }[axis];
    if (!board.on.has(entry.slug) || !(x > 0) || !(y > 0)) continue;
    const solid = axis === "params" ? data === entry.data : axis === "data" ? size === entry.size : true;
    const panel = board.splits[split].label;
    rows.push({ kind: "run", model: entry.label, panel, run, size, params, data, solid, x, y, low: floor(low, y), high });
    const key = JSON.stringify([entry.label, panel, x]);
    if (solid) groups.set(key, [...(groups.get(key) ?? []), y]);
  }
  if (axis === "flops") return rows.concat(fitRows(rows));
  for (const [key, ys] of groups) {
    const [model, panel, x] = JSON.parse(key);
    rows.push({ kind: "mean", model, panel, x, y: ys.reduce((a, b) => a + b) / ys.length });
  }
  return rows;
}

// A power law goes through its forecast: y = forecast (x / compute)^-exponent.
function fitRows(runs) {
  if (compute === null) return [];
  return board.entries.filter((entry) => board.on.has(entry.slug)).flatMap((entry) =>
    board.splits.flatMap(({ name, label: panel }) => {
      const xs = runs.filter((row) => row.model === entry.label && row.panel === panel).map((row) => row.x);
      if (!entry.fits[name] || !xs.length) return [];
      const [exponent, y, low, high] = entry.fits[name];
      const model = entry.label;
      const line = [Math.min(...xs), compute].map((x) => ({ kind: "fit", model, panel, x, y: y * (x / compute) ** -exponent }));
      return [...line, { kind: "forecast", model, panel, x: compute, y, low: floor(low, y), high }];
    }),
  );
}

// --- colours: a model keeps its own for as long as it is switched on

const slots = [];
function assign() {
  slots.forEach((slug, i) => board.on.has(slug) || (slots[i] = undefined));
  for (const slug of board.on) {
    if (slots.includes(slug)) continue;
    const free = slots.indexOf(undefined);
    slots[free === -1 ? slots.length : free] = slug;
  }
}

function coloured(spec, mode) {
  const used = slots.map((slug, i) => [board.entries.find((entry) => entry.slug === slug)?.label, i]).filter(([label]) => label);
  const scale = (values) => ({ domain: used.map(([label]) => label), range: used.map(([, i]) => values[i % values.length]) });
  const text = JSON.stringify(spec, (key, value) => {
    if (key === "color" && value.field === "model") return { ...value, scale: scale(theme.colours[mode]) };
    if (key === "shape" && value.field === "model") return { ...value, scale: scale(theme.shapes) };
    return value;
  });
  return JSON.parse(text);
}

// --- the models that can be switched: those drawn, and the best that the filters leave

function listModels() {
  let best = 0;
  const listed = board.entries.filter((entry, i) => (board.kept()[i] && best++ < BEST_LISTED) || board.on.has(entry.slug));
  const chips = listed.map(({ slug, label: words }) => {
    const chip = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: board.on.has(slug), value: slug });
    const swatch = document.createElement("span");
    swatch.className = box.checked ? `swatch series-${slots.indexOf(slug) % theme.colours.light.length}` : "swatch off";
    chip.append(box, swatch, words);
    return chip;
  });
  const focused = document.activeElement?.closest("#models") ? document.activeElement.value : null;
  const place = document.getElementById("models");
  place.replaceChildren(...chips);
  if (focused) [...place.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
}

// --- drawing

const MOST_SVG = 1500; // marks beyond which a chart is drawn on a canvas

function rowsOf(key) {
  return key === "scaling" ? scalingRows(board.axis()) : key === "shift" ? shiftRows() : computeRows();
}

async function draw(element) {
  await libraries();
  const key = element.dataset.chart;
  const mode = window.scisciTheme();
  const values = rowsOf(key);
  const kinds = new Set(values.map((row) => row.kind));
  if (!["run", "shown", "other"].some((kind) => kinds.has(kind))) {
    element.replaceChildren("No model has a value here; tick some in the table or widen the filters.");
    return;
  }
  const spec = coloured(specs[key === "scaling" ? board.axis() : key], mode);
  spec.data = { values };
  spec.spec.layer = spec.spec.layer.filter(({ transform: [{ filter }] }) => filter.oneOf.some((kind) => kinds.has(kind)));
  const config = theme.configs[mode];
  const renderer = values.length > MOST_SVG ? "canvas" : "svg";
  const tooltip = { theme: "custom", disableDefaultStyle: true };
  // Vega's interpreter in place of generated code, which the page's policy forbids.
  const options = { config, renderer, actions: false, ast: true, defaultStyle: false, tooltip };
  const width = element.clientWidth;
  await window.vegaEmbed(element, fitted(spec, width), options);
  // Labels take what the reader's font needs: one more pass gives back what they took too much.
  const excess = element.querySelector("svg, canvas").getBoundingClientRect().width - width;
  if (excess > 0) await window.vegaEmbed(element, fitted(spec, width - Math.ceil(excess) - 2), options);
}

const elements = [...document.querySelectorAll("[data-chart]")];
const stale = new Set(elements);
const seen = new Set();
let drawing = Promise.resolve();

// One after the other, and only what is in view.
function drawStale() {
  for (const element of elements.filter((one) => stale.has(one) && seen.has(one))) {
    stale.delete(element);
    drawing = drawing.then(() => draw(element));
  }
}

let waiting;
function refresh() {
  assign();
  listModels();
  for (const element of elements) stale.add(element);
  clearTimeout(waiting);
  waiting = setTimeout(drawStale, 120);
}

const watcher = new IntersectionObserver(
  (changes) => {
    for (const { target, isIntersecting } of changes) seen[isIntersecting ? "add" : "delete"](target);
    drawStale();
  },
  { rootMargin: "200px" },
);
for (const element of elements) watcher.observe(element);

let drawnWidth = document.querySelector("main").clientWidth;
new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (width === drawnWidth) return;
  drawnWidth = width;
  refresh();
}).observe(document.querySelector("main"));
document.getElementById("models").addEventListener("change", ({ target }) => board.toggle(target.value, target.checked));
document.addEventListener("board", refresh);
document.addEventListener("theme", refresh);
refresh();
