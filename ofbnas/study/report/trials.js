// The table of trials: sorted by any column, filtered, a row for each trial.

const OTHER_HEADINGS = {
  trial: "trial",
  status: "status",
  arch_id: "architecture",
  top1_before_finetune: "top-1 before fine-tuning, %",
  reason: "reason",
  finished_at: "finished",
};
const OTHER_FORMATS = {
  top1_before_finetune: (top1) => top1.toFixed(2),
  finished_at: (when) => when.slice(0, 16).replace("T", " "),
};

let shownTrials = []; // those in the table, in its order

// Columns in which some trial has a value: key, heading, value for sorting, and its text.
function tableColumns() {
  const { trials } = state.data;
  const someTrial = (name) => trials.some((trial) => has(trial, name));
  const costs = withRole("cost").filter((name) => trials.some((trial) => trial[name] > 0));
  const order = ["trial", "status", "reason", "arch_id", ...withRole("quality"), "top1_before_finetune", ...costs];
  return [
    ...order.filter(someTrial).map(storedColumn),
    ...sweptNames().map((name) => ({ key: `hp.${name}`, heading: name, value: (trial) => trial.hp[name], format: plainText })),
    ...["finished_at"].filter(someTrial).map(storedColumn),
  ];
}

function storedColumn(name) {
  const value = (trial) => trial[name];
  const column = state.data.columns[name];
  if (!column) {
    return { key: name, heading: OTHER_HEADINGS[name], value, format: OTHER_FORMATS[name] ?? plainText };
  }
  const values = state.data.trials.filter((trial) => has(trial, name)).map(value);
  const unit = unitOf(name, Math.max(...values));
  const format = isQuality(name)
    ? (percent) => percent.toFixed(2)
    : (cost) => formatNumber(cost * unit.factor);
  return { key: name, heading: headingOf(name, unit), value, format };
}

function drawTrials() {
  const columns = tableColumns();
  if (!columns.some((column) => column.key === state.sort.key)) state.sort = { key: "trial", down: false };
  const sorted = columns.find((column) => column.key === state.sort.key) ?? columns[0];
  const { passes, mistake } = filterOf(columns);
  const rows = state.data.trials
    .map((trial) => ({ trial, cells: columns.map((column) => cellText(column, trial)) }))
    .filter(({ trial, cells }) => passes(trial, cells));
  if (sorted) rows.sort((a, b) => compare(sorted.value(a.trial), sorted.value(b.trial), state.sort.down));

  byId("trials-head").replaceChildren(html("tr", {}, columns.map(headCell)));
  byId("trials-body").replaceChildren(...rows.map(({ trial, cells }) => tableRow(trial, columns, cells)));
  shownTrials = rows.map(({ trial }) => trial);
  const all = state.data.trials.length;
  const count = all ? `${rows.length} of ${plural(all, "trial")}` : "No trials yet.";
  announce(byId("filter-count"), mistake === null ? count : `${count}: ${mistake}`);
  byId("filter").setAttribute("aria-invalid", String(mistake !== null));
}

// The filter as a function of rows; all pass one that cannot be understood.
function filterOf(columns) {
  try {
    return { passes: parseFilter(state.filter, columns), mistake: null };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { passes: () => true, mistake: error.message };
  }
}

function cellText(column, trial) {
  const value = column.value(trial);
  return isMissing(value) ? MISSING : column.format(value);
}

function headCell(column) {
  const active = state.sort.key === column.key;
  const numeric = state.data.trials.some((trial) => typeof column.value(trial) === "number");
  let order = null;
  let arrow = "";
  if (active) {
    order = state.sort.down ? "descending" : "ascending";
    arrow = state.sort.down ? "\u00a0\u25be" : "\u00a0\u25b4";
  }
  const sortBy = () => {
    state.sort = { key: column.key, down: active && !state.sort.down };
    keepingFocus(drawTrials);
  };
  return html(
    "th",
    { scope: "col", "aria-sort": order, class: column.key !== "trial" && numeric ? "numeric" : null },
    html(
      "button",
      { type: "button", "data-key": `sort-${column.key}`, onclick: sortBy },
      breakable(column.heading),
      html("span", { "aria-hidden": "true" }, arrow),
    ),
  );
}

function tableRow(trial, columns, cells) {
  const selected = trial.trial === state.selected;
  return html(
    "tr",
    { class: `${trial.status}${selected ? " selected" : ""}`, "data-trial": trial.trial, onclick: () => select(trial.trial) },
    columns.map((column, index) => {
      if (column.key === "trial") return selectCell(trial, selected, cells[index]);
      return html("td", { class: cellClass(column, trial) }, cells[index]);
    }),
  );
}

function selectCell(trial, selected, label) {
  const button = html(
    "button",
    {
      type: "button",
      "aria-pressed": String(selected),
      "data-key": `row-${trial.trial}`,
      "aria-label": `Select trial ${label}`,
    },
    label,
  );
  return html("th", { scope: "row" }, button);
}

function cellClass(column, trial) {
  if (column.key === "reason") return "reason";
  return typeof column.value(trial) === "number" ? "numeric" : null;
}

// Missing values come last, whatever the direction.
function compare(a, b, down) {
  const missing = [a, b].map(isMissing);
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  const numeric = typeof a === "number" && typeof b === "number";
  const order = numeric ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}
