// The table of trials: sorted by any column, filtered by text, a row for each trial.

const PLAIN = {
  trial: "trial", status: "status", arch_id: "architecture", top1_before_finetune: "top-1 before tuning, %",
  reason: "reason", finished_at: "finished",
};
const ORDER = ["trial", "status", "reason", "arch_id", "top1", "val_top1", "top5", "top1_before_finetune", "gmacs", "params", "latency_ms", "seconds"];

// Columns that some trial has a value in: key, heading, value for sorting, and text.
function tableColumns() {
  const { trials } = state.data;
  const swept = [...new Set(trials.flatMap((trial) => Object.keys(trial.hp)))];
  const columns = ORDER.filter((name) => trials.some((trial) => has(trial, name))).map(storedColumn);
  columns.push(...swept.map((name) => ({ key: `hp.${name}`, heading: name, value: (trial) => trial.hp[name], said: text })));
  if (trials.some((trial) => trial.finished_at)) columns.push(storedColumn("finished_at"));
  return columns;
}

function storedColumn(name) {
  const value = (trial) => trial[name];
  if (!(name in COLUMNS)) {
    const said = { top1_before_finetune: (top1) => top1.toFixed(2), finished_at: (when) => when.slice(0, 16).replace("T", " ") };
    return { key: name, heading: PLAIN[name], value, said: said[name] ?? text };
  }
  const unit = unitOf(name, Math.max(...state.data.trials.filter((trial) => has(trial, name)).map(value)));
  const said = QUALITIES.includes(name) ? (percent) => percent.toFixed(2) : (found) => number(found * unit.factor);
  return { key: name, heading: name === "gmacs" ? unit.name : COLUMNS[name].short + (unit.name ? `, ${unit.name}` : ""), value, said };
}

function drawTrials() {
  const columns = tableColumns();
  if (!columns.some((column) => column.key === state.sort.key)) state.sort = { key: "trial", down: false };
  const sorted = columns.find((column) => column.key === state.sort.key) ?? columns[0];
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = state.data.trials
    .map((trial) => ({ trial, cells: columns.map((column) => cellText(column, trial)) }))
    .filter(({ cells }) => words.every((word) => cells.join("\n").toLowerCase().includes(word)));
  if (sorted) rows.sort((a, b) => compare(sorted.value(a.trial), sorted.value(b.trial), state.sort.down));
  byId("trials-head").replaceChildren(html("tr", {}, columns.map(headCell)));
  byId("trials-body").replaceChildren(...rows.map(({ trial, cells }) => tableRow(trial, columns, cells)));
  const all = state.data.trials.length;
  byId("filter-count").textContent = all ? `${rows.length} of ${plural(all, "trial")}` : "No trials yet.";
}

function cellText(column, trial) {
  const value = column.value(trial);
  return value === undefined || value === null ? "\u2013" : column.said(value);
}

function headCell(column) {
  const here = state.sort.key === column.key;
  const order = here ? (state.sort.down ? "descending" : "ascending") : null;
  const numeric = state.data.trials.some((trial) => typeof column.value(trial) === "number");
  const sortBy = () => {
    state.sort = { key: column.key, down: here && !state.sort.down };
    keepingPlace(drawTrials);
  };
  const arrow = here ? (state.sort.down ? "\u00a0\u25be" : "\u00a0\u25b4") : "";
  return html(
    "th", { scope: "col", "aria-sort": order, class: column.key !== "trial" && numeric ? "numeric" : null },
    html("button", { type: "button", "data-key": `sort-${column.key}`, onclick: sortBy }, breakable(column.heading),
      html("span", { "aria-hidden": "true" }, arrow)),
  );
}

function tableRow(trial, columns, cells) {
  const selected = trial.trial === state.selected;
  return html(
    "tr",
    { class: `${trial.status}${selected ? " selected" : ""}`, "data-trial": trial.trial, onclick: () => select(trial.trial) },
    columns.map((column, index) => {
      const numeric = typeof column.value(trial) === "number";
      if (column.key === "trial") {
        const attributes = { type: "button", "aria-pressed": String(selected), "data-key": `row-${trial.trial}`, "aria-label": `Select trial ${cells[index]}` };
        return html("th", { scope: "row" }, html("button", attributes, cells[index]));
      }
      return html("td", { class: column.key === "reason" ? "reason" : numeric ? "numeric" : null }, cells[index]);
    }),
  );
}

// What is missing comes last either way.
function compare(a, b, down) {
  const missing = [a, b].map((value) => value === undefined || value === null);
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  const numeric = typeof a === "number" && typeof b === "number";
  const order = numeric ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}
