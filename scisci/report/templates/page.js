const read = (id) => JSON.parse(document.getElementById(id).textContent);
const charts = read("charts");
const configs = read("configs");
const dark = matchMedia("(prefers-color-scheme: dark)");

{% include "panels.js" %}

async function draw(element) {
  const width = element.clientWidth;
  const chart = charts[element.dataset.chart];
  const mode = dark.matches ? "dark" : "light";
  const config = structuredClone(configs[mode]);
  if (width < 600) config.legend.layout = { top: { direction: "vertical", anchor: "start" } };
  const options = { config, renderer: "svg", actions: false, tooltip: { theme: mode } };
  await window.vegaEmbed(element, fitted(chart, width), options);
  // Labels take what the reader's font needs: one more pass gives back what they took too much.
  const excess = element.querySelector("svg").getBoundingClientRect().width - width;
  if (excess > 0) await window.vegaEmbed(element, fitted(chart, width - Math.ceil(excess) - 2), options);
}

// One after the other: a chart never draws over itself, and a new width or theme waits its turn.
let drawing = Promise.resolve();
function drawAll() {
  for (const element of document.querySelectorAll("[data-chart]")) {
    drawing = drawing.then(() => draw(element));
  }
}

let drawnWidth = 0;
new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (width === drawnWidth) return;
  drawnWidth = width;
  requestAnimationFrame(drawAll);
}).observe(document.querySelector("main"));
dark.addEventListener("change", drawAll);

// A column's button sorts the rows by it: once up, again down; cells without a value stay last.
function sort(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const numeric = header.classList.contains("number");
  const key = (row) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.order === undefined ? null : Number(cell.dataset.order);
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return up ? order : -order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}
for (const header of document.querySelectorAll("thead th")) {
  header.querySelector("button").addEventListener("click", () => sort(header));
}
