// Sorting and run pickers of the report. Without this script the page still has the tables of all runs.
"use strict";

const BOUNDS = [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1]; // the same as in heat_maps.py
const DIFFERENCE_STEPS = 8;

/** The number in a cell, NaN if there is none: "94.74 ± 0.12", "−0.3", "10,000", "> 99.99". */
function numberOf(text) {
  return parseFloat(text.replace(/[,>\s]/g, "").replace("−", "-"));
}

/** Compares two texts, as numbers or as words. An empty text or a dash always comes last. */
function compare(a, b, numeric, sign) {
  if (numeric) {
    const [x, y] = [numberOf(a), numberOf(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  }
  const [noX, noY] = [a === "–" || a === "", b === "–" || b === ""];
  return noX || noY ? noX - noY : sign * a.localeCompare(b, "en", { numeric: true });
}

/** Sorts a table by a column: numbers from the largest, words from the first letter. The next call reverses it. */
function sortBy(table, header) {
  const numeric = header.classList.contains("n");
  const before = header.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const direction = before === first ? other : first;
  for (const each of table.tHead.querySelectorAll("th")) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const column = Number(header.dataset.column);
  const textOf = (row) => row.cells[column].textContent.trim();
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(textOf(a), textOf(b), numeric, direction === "ascending" ? 1 : -1));
  table.tBodies[0].append(...rows);
}

/** Makes each header a button, so that mouse, keyboard and screen reader can sort. */
function makeSortable(table) {
  for (const header of table.tHead.querySelectorAll("th[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header));
  }
}

/** A difference in points with its sign: "+1.2", "−0.3", "0.0". */
function signed(difference) {
  const text = Math.abs(100 * difference).toFixed(1);
  if (Number(text) === 0) return text;
  return (difference > 0 ? "+" : "−") + text;
}

function shadeOf(difference, bound) {
  const steps = Math.floor((DIFFERENCE_STEPS * difference) / bound + 0.5);
  return DIFFERENCE_STEPS + Math.max(-DIFFERENCE_STEPS, Math.min(DIFFERENCE_STEPS, steps));
}

/** row number -> its accuracies, in the order of the columns; NaN for what is missing. */
function valuesOf(table) {
  const values = new Map();
  for (const row of table.tBodies[0].rows) {
    const cells = [...row.cells].slice(1);
    values.set(row.dataset.row, cells.map((cell) => parseFloat(cell.dataset.value)));
  }
  return values;
}

/** Fills the difference map of a data set: the chosen run minus the other. */
function showDifference(set, run, base) {
  const table = set.querySelector("[data-difference]");
  const heat = (item) => valuesOf(set.querySelector(`[data-heat="${item}"]`));
  const [ours, theirs] = [heat(run), heat(base)];
  const differences = new Map();
  let largest = 0;
  for (const [row, values] of ours) {
    const line = values.map((value, i) => value - theirs.get(row)[i]);
    differences.set(row, line);
    for (const value of line) if (Math.abs(value) > largest) largest = Math.abs(value);
  }
  const bound = BOUNDS.find((each) => largest <= each) ?? 1;
  for (const row of table.tBodies[0].rows) {
    differences.get(row.dataset.row).forEach((value, i) => {
      const cell = row.cells[i + 1];
      const known = !Number.isNaN(value);
      cell.textContent = known ? signed(value) : "–";
      cell.className = known ? `n d${shadeOf(value, bound)}` : "n";
    });
  }
  for (const header of table.tHead.querySelectorAll("th")) header.removeAttribute("aria-sort");
  for (const place of set.querySelectorAll("[data-bound]")) place.textContent = String(Math.round(100 * bound));
}

/** Shows the parts of the chosen runs and hides the rest. */
function showChosen(set) {
  const picked = (which) => set.querySelector(`[data-pick="${which}"]`);
  const [run, base] = [picked("run").value, picked("base").value];
  for (const item of set.querySelectorAll("[data-item]")) {
    const number = item.dataset.item;
    item.hidden = number !== run && number !== base;
    item.classList.toggle("chosen", number === run);
    item.classList.toggle("compared", number === base && number !== run);
  }
  for (const which of ["run", "base"]) {
    const label = picked(which).selectedOptions[0].textContent;
    for (const place of set.querySelectorAll(`[data-name="${which}"]`)) place.textContent = label;
  }
  if (set.querySelector("[data-difference]")) showDifference(set, run, base);
}

/** Makes boxes that scroll reachable by keyboard, and only those. */
function markScrollers() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
for (const set of document.querySelectorAll(".set")) {
  const pickers = set.querySelector(".pickers");
  pickers.hidden = set.querySelectorAll("[data-pick=run] option").length < 2;
  pickers.addEventListener("change", () => {
    showChosen(set);
    markScrollers();
  });
  showChosen(set);
}
document.addEventListener("toggle", markScrollers, true);
window.addEventListener("resize", markScrollers);
window.addEventListener("load", markScrollers);
