"use strict";
// What every sortable table shares. Values that are not there stay last, whichever way a column is sorted.
(() => {
  const last = (compare) => (a, b) => (a === "" || b === "" ? (a === "") - (b === "") : compare(a, b));
  const order = (compare) => ({ asc: last(compare), desc: last((a, b) => compare(b, a)) });
  const number = (value) => (value === "" || value === null ? "" : Number(value));
  DataTable.type("value", { className: "number", order: { pre: number, ...order((a, b) => a - b) } });
  const words = new Intl.Collator("en", { numeric: true });
  const plain = (value) => String(value).replace(/<[^>]*>/g, "").trim().replace(/^–$/, "");
  DataTable.type("words", { order: { pre: plain, ...order(words.compare) } });

  Object.assign(DataTable.defaults, {
    autoWidth: false,
    order: [],
    pageLength: 100,
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
  });
  addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll("table.sortable")) {
      new DataTable(table, table.tBodies[0].rows.length > 100 ? {} : { paging: false, info: false });
    }
  });
})();
