// The search of the selected trial: losses and schedules over steps, and the options left on each axis.

const CURVES = {
  task: "Task loss",
  reconstruction: "Reconstruction loss",
  one_hot: "One-hot loss",
  importance_norm: "Importance norm",
  expected_cost: "Expected cost, share",
  importance_weight: "\u03bb, weight of importance",
  mask_ratio: "Mask ratio",
  multiplier: "Multiplier of the budget",
};
const CURVE_HEIGHT = 150;
const MIN_CURVE_WIDTH = 240;
const MAX_CURVE_COLUMNS = 4;
const CURVE_GAP = 16; // as in style.css
const OPTIONS_ROW = 18; // height of an axis of the chart of options
const FULLEST = 0.55; // opacity of a cell with all options; their number stays readable in light and dark

function drawHistory() {
  const trial = selectedTrial();
  const decisions = trial ? state.data.decisions[trial.trial] : undefined;
  byId("history").hidden = !decisions;
  const missing = missingHistory(trial, decisions);
  byId("history-none").replaceChildren(missing ? html("p", { class: "note" }, missing) : "");
  drawEpochs();
  if (!decisions) return;

  const last = decisions.step.length - 1;
  const decision = Math.min(state.decision ?? last, last);
  drawSlider(decisions, decision);

  const names = Object.keys(CURVES).filter((name) => decisions[name].some((value) => value !== null));
  const width = inColumns(byId("curves"));
  byId("curves").replaceChildren(...names.map((name) => curve(trial, decisions, name, decision, width)));

  drawOptions(decisions, decision);
}

// Lay a grid of curves out in columns; the width of each.
function inColumns(grid) {
  const available = widthOf(grid);
  const fitting = Math.floor(available / MIN_CURVE_WIDTH);
  const columns = Math.max(1, Math.min(MAX_CURVE_COLUMNS, fitting));
  grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  return Math.floor((available - CURVE_GAP * (columns - 1)) / columns);
}

// What a trial's history lacks, or null.
function missingHistory(trial, decisions) {
  if (!trial) return "No trial has a row yet.";
  if (state.data.epochs[trial.trial]) return null;
  if (decisions) return "Nothing was recorded of its epochs: this trial was not trained, or is of an older version.";
  if (trial.status === "running") return `Trial ${trial.trial} has no history yet: no epoch has ended.`;
  return `Trial ${trial.trial} has no history.`;
}

// A line that values are compared with, and its name.
function limit(area, y, name) {
  return [
    svg("line", { class: "limit", x1: area.left, x2: area.right, y1: y, y2: y }),
    svg("text", { class: "tick halo", x: area.right - 2, y: y - 4, "text-anchor": "end" }, name),
  ];
}

function drawSlider(decisions, decision) {
  const slider = byId("decision");
  const step = decisions.step[decision].toLocaleString("en");
  const when = `step ${step}, epoch ${decisions.epoch[decision]}`;
  slider.max = decisions.step.length - 1;
  slider.value = decision;
  slider.setAttribute("aria-valuetext", when);
  byId("decision-facts").value = `${when}; ${openAxes(decisions, decision)}`;
}

function openAxes(decisions, decision) {
  const open = decisions.options.filter((counts) => counts[decision] > 1).length;
  return `${open} of ${decisions.axes.length} axes open`;
}

function curve(trial, decisions, name, decision, width) {
  // A loss that does not apply yet is null, so a curve may begin late.
  const points = decisions.step
    .map((step, index) => ({ step, value: decisions[name][index] }))
    .filter(({ value }) => value !== null);
  const values = points.map(({ value }) => value);
  const budget = name === "expected_cost" ? trial.budget_share : undefined;
  const range = budget === undefined ? values : [...values, budget];
  const { chart, across, up, area } = frame(
    width,
    CURVE_HEIGHT,
    extent(decisions.step, 0.02),
    extent(range, 0.1),
    { role: "img", "aria-label": curveLabel(name, points) },
  );

  if (budget !== undefined) chart.append(...limit(area, up(budget), "budget"));
  const x = across(decisions.step[decision]);
  chart.append(svg("line", { class: "cursor", x1: x, x2: x, y1: area.top, y2: area.bottom }));
  const path = points.map(({ step, value }) => `${across(step)},${up(value)}`).join("L");
  chart.append(svg("path", { class: "curve", d: `M${path}` }));
  const current = decisions[name][decision];
  if (current !== null) chart.append(svg("circle", { class: "mark", cx: x, cy: up(current), r: 3.5 }));

  followPointer(chart, (pointer) => {
    const distance = (index) => Math.abs(across(decisions.step[index]) - pointer.x);
    return nearest(decisions.step.keys(), distance, Infinity);
  });
  const shown = current === null ? MISSING : formatNumber(current);
  const heading = html("figcaption", {}, html("span", {}, CURVES[name]), html("b", {}, shown));
  return html("figure", {}, heading, chart);
}

function curveLabel(name, points) {
  const [first, last] = [points[0], points[points.length - 1]];
  const from = `${formatNumber(first.value)} at step ${first.step}`;
  const to = `${formatNumber(last.value)} at step ${last.step}`;
  return `${CURVES[name]}: ${from}, ${to}`;
}

// Rows are axes, columns are decisions; the more options are left, the fuller the color.
function drawOptions(decisions, decision) {
  const holder = byId("options");
  const width = widthOf(holder);
  const longestName = Math.max(...decisions.axes.map((axis) => axis.length)) * CHARACTER;
  const left = Math.min(longestName, width * 0.36) + 8;
  const column = (width - left - 4) / decisions.step.length;
  const bottom = decisions.axes.length * OPTIONS_ROW;
  const height = bottom + 24;
  const chart = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": optionsLabel(decisions),
  });

  decisions.axes.forEach((axis, index) => {
    const y = index * OPTIONS_ROW;
    const name = clipped(axis, left - 8);
    chart.append(svg("text", { class: "tick", x: left - 8, y: y + 13, "text-anchor": "end" }, name));
    chart.append(...optionCells(decisions.options[index], left, column, y));
  });
  const every = Math.ceil(56 / column); // columns per label of a step
  for (let index = 0; index < decisions.step.length; index += every) {
    const middle = left + (index + 0.5) * column;
    const step = formatNumber(decisions.step[index]);
    chart.append(svg("text", { class: "tick", x: middle, y: bottom + 16, "text-anchor": "middle" }, step));
  }
  chart.append(svg("rect", { class: "cursor", x: left + decision * column, y: 0, width: column, height: bottom }));

  followPointer(chart, (pointer) => {
    const index = Math.floor((pointer.x - left) / column);
    return index < 0 || index >= decisions.step.length ? null : index;
  });
  const hint = "Columns are decisions, labelled with their step. Full color means that an axis has all its options, no color that it is decided: only one is left.";
  holder.replaceChildren(html("p", { class: "hint" }, hint), chart);
}

function optionsLabel(decisions) {
  const last = decisions.step.length - 1;
  const axes = decisions.axes.map((axis, index) => {
    const counts = decisions.options[index];
    return `${axis} from ${counts[0]} to ${counts[last]}`;
  });
  return `Options left over ${plural(decisions.step.length, "decision")}: ${axes.join(", ")}`;
}

// The cells of one axis. Options multiply over axes, so colors follow the logarithm of their number.
function optionCells(counts, left, column, y) {
  const most = Math.log(Math.max(2, ...counts));
  const cells = [];
  for (const [from, to] of runs(counts)) {
    const count = counts[from];
    const share = count === null ? 0 : Math.log(Math.max(1, count)) / most;
    const x = left + from * column;
    const width = (to - from) * column;
    const box = { x, y: y + 1, width, height: OPTIONS_ROW - 2 };
    cells.push(svg("rect", { class: "cell none", ...box }));
    cells.push(svg("rect", { class: "cell", ...box, style: { fillOpacity: FULLEST * share } }));
    if (count !== null && width > 8 + 7 * String(count).length) {
      cells.push(svg("text", { class: "count", x: x + 4, y: y + 13 }, String(count)));
    }
  }
  return cells;
}

// Stretches of equal values, as [from, to).
function runs(values) {
  const stretches = [];
  values.forEach((value, index) => {
    if (index && value === values[index - 1]) stretches[stretches.length - 1][1] = index + 1;
    else stretches.push([index, index + 1]);
  });
  return stretches;
}

// A click on a chart selects the decision there, if there is one.
function followPointer(chart, decisionAt) {
  chart.addEventListener("click", (event) => {
    const decision = decisionAt(pointerIn(chart, event));
    if (decision === null) return;
    state.decision = decision;
    drawHistory();
  });
}
