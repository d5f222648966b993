"use strict";
// The ranking: filters, ranks among what they leave, columns, and the URL's fragment that holds all of it.
(() => {
  const { entries, splits } = JSON.parse(document.getElementById("rows").textContent);
  const form = document.getElementById("filters");
  const chooser = document.getElementById("chooser");
  const boxes = [...chooser.querySelectorAll("input")];
  const axes = [...document.querySelectorAll("input[name=axis]")];
  const STATUS = ["self-reported", "recomputed", "reproduced"];
  const BEST_DRAWN = 5;
  const PAGE = 50;

  let kept = entries.map(() => true); // which entries the filters leave, by position
  let ranks = entries.map(() => null);
  const on = new Set(); // slugs drawn in colour, in the order of their colours

  function keep(entry) {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    return (
      words.every((word) => entry.words.includes(word)) &&
      (!wanted.family || entry.family === wanted.family) &&
      (!wanted.status || STATUS.indexOf(entry.status) >= STATUS.indexOf(wanted.status)) &&
      (!wanted.claim || entry.claims.includes(wanted.claim)) &&
      (!wanted.contamination || entry.contamination === wanted.contamination) &&
      (!wanted.max || (entry.params !== null && entry.params <= Number(wanted.max)))
    );
  }

  // 1 + the entries left whose whole interval lies below; null for an entry that is not ranked or not left.
  function rankBy(key) {
    const taking = (entry, i) => kept[i] && entry.ranked[key];
    const highs = Float64Array.from(entries.filter(taking), (entry) => entry.ranked[key][2]).sort();
    return entries.map((entry, i) => (taking(entry, i) ? 1 + below(highs, entry.ranked[key][1]) : null));
  }

  // How many of the sorted values are less than `value`.
  function below(values, value) {
    let [low, high] = [0, values.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Among ties the lower error comes first.
  DataTable.ext.order.rank = () => {
    const by = form.elements.by.value;
    const errors = entries.map((entry) => entry.ranked[by]?.[0] ?? Infinity);
    const place = [];
    errors.map((_, i) => i).sort((a, b) => errors[a] - errors[b]).forEach((i, n) => (place[i] = n));
    return ranks.map((rank, i) => (rank === null ? "" : rank + place[i] / (entries.length + 1)));
  };

  // The page's rows are what is seen without scripts; all columns come as data, and only rows in view become elements.
  const cells = JSON.parse(document.getElementById("cells").textContent);
  const element = document.getElementById("table-board");
  const heads = [...element.tHead.rows[0].cells];
  const visible = heads.map((head) => !head.hidden);
  const columns = heads.map((head, n) => {
    const { name, type } = head.dataset;
    // Of text DataTables sees what sorts alone: what it is given to display or to search it reads as HTML.
    const data = (i, wanted) => (wanted === "sort" ? sortValue(cells[n][i], type) : "");
    const createdCell = (place, _data, i) => {
      place.entry = i;
      if (visible[n]) fill(place, name, cells[n][i], entries[i]); // a hundred hidden ones would take longer than all else
    };
    const special = { rank: { orderDataType: "rank" }, name: { cellType: "th", className: "name" } };
    return { name, type, data, createdCell, searchable: false, visible: visible[n], ...special[name] };
  });

  function sortValue(cell, type) {
    if (cell === null) return "";
    return type === "value" ? (cell[1] ?? "") : cell[0];
  }

  function fill(place, name, cell, entry) {
    const [words, , note, tone, hint] = cell ?? ["–"];
    const inner = document.createElement(name === "name" ? "a" : "span");
    inner.textContent = words;
    if (tone) inner.className = tone;
    if (hint) inner.title = hint;
    place.append(inner);
    if (note) place.append(Object.assign(document.createElement("small"), { textContent: note }));
    if (name !== "name") return;
    place.scope = "row";
    inner.href = `../../models/${entry.slug}/index.html`;
    const box = Object.assign(document.createElement("input"), { type: "checkbox", ariaLabel: `${words} in the charts` });
    box.dataset.slug = entry.slug;
    place.prepend(box);
  }

  for (const head of heads) head.hidden = false;
  element.tBodies[0].replaceChildren();
  const table = new DataTable(element, {
    data: entries.map((_, i) => i),
    columns,
    pageLength: PAGE,
    paging: entries.length > PAGE,
    order: [[0, "asc"]],
  });
  table.search.fixed("filters", (_text, _data, index) => kept[index]);
  const names = table.columns().names().toArray();
  const atFirst = new Set(boxes.filter((box) => box.defaultChecked).map((box) => box.value));
  element.classList.add("ready");

  function apply() {
    const wanted = entries.map(keep);
    kept = wanted;
    ranks = rankBy(form.elements.by.value);
    table.draw();
    const left = kept.filter(Boolean).length;
    const all = entries.length.toLocaleString("en");
    document.getElementById("count").textContent = left === entries.length ? `${all} models` : `${left} of ${all} models`;
    changed();
  }

  function choose(shown) {
    for (const box of boxes) {
      box.checked = shown.has(box.value);
      const n = names.indexOf(box.value);
      if (visible[n] === box.checked) continue;
      visible[n] = box.checked;
      table.column(n).visible(box.checked, false);
      for (const place of table.column(n).nodes().toArray()) {
        if (!place.hasChildNodes()) fill(place, box.value, cells[n][place.entry], entries[place.entry]);
      }
    }
    table.columns.adjust();
  }

  // What rows in view say of the state: their rank, and whether the charts have them.
  function tick() {
    for (const row of table.rows({ page: "current" }).nodes().toArray()) {
      const box = row.querySelector("input[data-slug]");
      box.checked = on.has(box.dataset.slug);
      row.cells[0].textContent = ranks[position.get(box.dataset.slug)] ?? "–";
    }
  }

  // --- the URL's fragment: only what differs from the first view

  let restoring = false;

  function write() {
    if (restoring) return;
    const state = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value && value !== "overall") state.set(name, value);
    const [[column, way] = [0, "asc"]] = table.order();
    if (column !== 0 || way !== "asc") state.set("sort", `${way === "desc" ? "-" : ""}${names[column]}`);
    const keys = (test) => boxes.filter(test).map((box) => box.value).join(",");
    const show = keys((box) => box.checked && !atFirst.has(box.value));
    const hide = keys((box) => !box.checked && atFirst.has(box.value));
    if (show) state.set("show", show);
    if (hide) state.set("hide", hide);
    const drawn = [...on].join(",");
    if (drawn !== drawnAtFirst.join(",")) state.set("on", drawn);
    const axis = axes.find((box) => box.checked).value;
    if (axis !== "flops") state.set("axis", axis);
    const text = state.toString().replaceAll("%2C", ",");
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  const position = new Map(entries.map((entry, i) => [entry.slug, i]));
  const drawnAtFirst = entries.slice(0, BEST_DRAWN).map((entry) => entry.slug);

  function read() {
    const fragment = location.hash.slice(1);
    if (fragment && !fragment.includes("=")) return apply(); // an anchor
    restoring = true;
    const state = new URLSearchParams(fragment);
    for (const field of form.elements) {
      field.value = state.get(field.name) ?? (field.name === "by" ? "overall" : "");
      if (field.selectedIndex === -1) field.selectedIndex = 0;
    }
    const list = (name) => (state.get(name) ?? "").split(",").filter(Boolean);
    choose(new Set([...atFirst].filter((key) => !list("hide").includes(key)).concat(list("show"))));
    const sort = state.get("sort") ?? "rank";
    const column = names.indexOf(sort.replace(/^-/, ""));
    table.order([[Math.max(0, column), sort.startsWith("-") ? "desc" : "asc"]]);
    on.clear();
    const known = new Set(entries.map((entry) => entry.slug));
    for (const slug of state.has("on") ? list("on") : drawnAtFirst) if (known.has(slug)) on.add(slug);
    const axis = axes.find((box) => box.value === state.get("axis")) ?? axes.find((box) => box.value === "flops");
    axis.checked = true;
    tick();
    apply();
    restoring = false;
  }

  function changed() {
    write();
    document.dispatchEvent(new CustomEvent("board"));
  }

  function toggle(slug, wanted) {
    if (wanted) on.add(slug);
    else on.delete(slug);
    tick();
    changed();
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.on("order.dt", write);
  table.on("draw.dt", tick);
  chooser.addEventListener("change", () => {
    choose(new Set(boxes.filter((box) => box.checked).map((box) => box.value)));
    write();
  });
  chooser.addEventListener("click", ({ target }) => {
    if (!target.dataset.columns) return;
    choose(target.dataset.columns === "all" ? new Set(boxes.map((box) => box.value)) : atFirst);
    write();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !chooser.open) return;
    chooser.open = false;
    chooser.querySelector("summary").focus();
  });
  addEventListener("click", (event) => {
    if (chooser.open && !chooser.contains(event.target)) chooser.open = false;
  });
  element.addEventListener("change", ({ target }) => {
    if (target.dataset.slug) toggle(target.dataset.slug, target.checked);
  });
  for (const box of axes) box.addEventListener("change", changed);
  document.getElementById("reset").addEventListener("click", () => {
    history.replaceState(null, "", location.pathname + location.search);
    read();
    write();
  });
  addEventListener("hashchange", read);

  window.scisciBoard = {
    entries,
    splits,
    on,
    toggle,
    kept: () => kept,
    ranks: () => ranks,
    axis: () => axes.find((box) => box.checked).value,
  };
  read();
})();
