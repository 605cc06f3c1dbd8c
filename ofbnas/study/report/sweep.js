// Swept hyper-parameters: how important each is, and how they relate to cost and accuracy.

const FEW_TRIALS = 50; // importances from fewer trials are rough
const AXIS_ROW = 46; // height between two axes of the parallel coordinates
const AXIS_MARGIN = 10; // pixels around the axes, and between their names and them
const NAMES_SHARE = 0.4; // of the width, at most, for the names of the axes
const LINE_REACH = 14; // pixels within which the pointer selects a line

const sweptNames = () => [...new Set(state.data.trials.flatMap((trial) => Object.keys(trial.hp)))];

function drawImportance() {
  const { objectives, why_not: whyNot } = state.data.importance;
  if (whyNot !== null) {
    byId("importance").replaceChildren(html("p", { class: "note" }, whyNot));
    return;
  }
  byId("importance").replaceChildren(html("p", { class: "hint" }, importanceHint()), ...objectives.flatMap(importanceOf));
}

// The bars of one objective, or why there are none.
function importanceOf({ metric, shares, why_not: whyNot }) {
  const heading = html("h3", {}, `For ${state.data.columns[metric].short}`);
  if (whyNot !== null) return [heading, html("p", { class: "note" }, whyNot)];
  const entries = Object.entries(shares);
  const largest = Math.max(...entries.map(([, share]) => share));
  const rows = entries.map(([name, share]) =>
    html(
      "div",
      { class: "share" },
      html("span", { class: "share-name" }, breakable(name)),
      bar(share, largest),
      html("span", { class: "amount" }, `${(100 * share).toFixed(0)} %`),
    ),
  );
  return [heading, html("div", { class: "shares" }, rows)];
}

function importanceHint() {
  const { evaluator, trials } = state.data.importance;
  const what = "Share of the variance of each objective that a hyper-parameter explains";
  const from = `by Optuna's ${evaluator}, from ${plural(trials, "complete trial")}`;
  const rough = trials < FEW_TRIALS ? ` With fewer than about ${FEW_TRIALS} this is rough.` : "";
  return `${what}, ${from}.${rough}`;
}

// Axes lie one below the other, so that names fit on a phone too; a trial is a line across all of them.
// Names and ranges stand left of the axes, where no line runs.
function drawParallel() {
  const holder = byId("parallel");
  const rows = state.data.trials.filter((trial) => trial.status === "complete");
  const axes = parallelAxes(rows);
  if (!rows.length || !axes.length) {
    holder.replaceChildren(html("p", { class: "note" }, "No complete trial yet."));
    return;
  }
  const width = widthOf(holder);
  const height = axes.length * AXIS_ROW;
  const chart = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${plural(rows.length, "complete trial")} over ${axes.map((axis) => axis.label).join(", ")}; the table of trials has the values`,
  });

  const longest = CHARACTER * Math.max(...axes.flatMap(({ label, range }) => [label.length, range.length]));
  const left = Math.min(longest, NAMES_SHARE * width) + 2 * AXIS_MARGIN;
  const right = width - AXIS_MARGIN;
  const scales = axes.map((axis) => linear(axis, left, right));
  const level = (index) => (index + 0.5) * AXIS_ROW;
  axes.forEach((axis, index) => {
    const y = level(index);
    const room = left - 2 * AXIS_MARGIN;
    chart.append(
      svg("text", { class: "tick name", x: 0, y: y - 2 }, clipped(axis.label, room)),
      svg("text", { class: "tick", x: 0, y: y + 12 }, shortened(axis.range, room)),
      svg("line", { class: "axis", x1: left - 4, x2: right + 4, y1: y, y2: y }),
    );
  });
  const lines = rows.map((trial) => ({ trial, points: pointsOf(trial, axes, scales, level) }));
  chart.append(...trialLines(lines));

  const hint = "Each line is a trial; colors are those of the front. Under a name is its range, from left to right.";
  holder.replaceChildren(html("p", { class: "hint" }, hint), chart);
  selectByPointer(holder, chart, (pointer) => {
    return nearest(lines, ({ points }) => distanceTo(points, pointer), LINE_REACH)?.trial ?? null;
  });
}

// Where a trial's line crosses each axis that it has a value on.
function pointsOf(trial, axes, scales, level) {
  return axes
    .map((axis, index) => ({ value: axis.value(trial), axis, index }))
    .filter(({ value }) => !isMissing(value))
    .map(({ value, axis, index }) => ({ x: scales[index](axis.place(value)), y: level(index) }));
}

// Lines, with marks on the selected one, which is drawn last; those of the front come just before it.
function trialLines(lines) {
  const front = state.data.fronts[`${state.x}/${state.y}`] ?? [];
  const rank = ({ trial }) => (trial.trial === state.selected ? 2 : Number(front.includes(trial.trial)));
  const elements = [];
  for (const line of [...lines].sort((a, b) => rank(a) - rank(b))) {
    const kind = ["off-front", "on-front", "selected"][rank(line)];
    const path = line.points.map(({ x, y }) => `${x},${y}`).join("L");
    elements.push(svg("path", { class: `trial-line ${kind}`, d: `M${path}`, "data-trial": line.trial.trial }));
    if (kind === "selected") {
      elements.push(...line.points.map(({ x, y }) => svg("circle", { class: "mark", cx: x, cy: y, r: 4 })));
    }
  }
  return elements;
}

// How far a pointer is from a line, measured horizontally.
function distanceTo(points, pointer) {
  for (let index = 0; index + 1 < points.length; index += 1) {
    const above = points[index];
    const below = points[index + 1];
    if (pointer.y < above.y || pointer.y > below.y) continue;
    const share = (pointer.y - above.y) / (below.y - above.y);
    return Math.abs(above.x + share * (below.x - above.x) - pointer.x);
  }
  return Infinity;
}

// Axes of the swept fields, then of cost and accuracy. An axis has a label, the text of its range, its low and high
// ends, a trial's `value`, and the `place` of a value between the ends.
function parallelAxes(rows) {
  const measured = [state.x, state.y].filter((column) => rows.some((trial) => has(trial, column)));
  return [...sweptNames().map((name) => sweptAxis(name, rows)), ...measured.map((column) => measuredAxis(column, rows))];
}

function measuredAxis(column, rows) {
  const value = (trial) => trial[column];
  const values = rows.map(value).filter((each) => !isMissing(each));
  const unit = unitOf(column, Math.max(...values));
  const written = (each) => formatNumber(each * unit.factor);
  return numericAxis(headingOf(column, unit), value, values, { written });
}

function sweptAxis(name, rows) {
  const declared = state.data.swept[name] ?? {};
  const value = (trial) => trial.hp[name];
  const given = rows.map(value).filter((each) => !isMissing(each));
  if (!declared.choices && given.every((each) => typeof each === "number")) {
    return numericAxis(name, value, given, { log: declared.log });
  }
  const choices = [...new Set((declared.choices ?? given).map(plainText))];
  return {
    label: name,
    range: choices.join(", "),
    low: -0.3,
    high: choices.length - 0.7,
    ticks: choices.map((label, position) => ({ position, label })),
    value,
    place: (each) => choices.indexOf(plainText(each)),
  };
}

function numericAxis(label, value, values, { log = false, written = formatNumber }) {
  const place = log ? Math.log : (each) => each;
  const [least, largest] = [Math.min(...values), Math.max(...values)];
  const ends = least === largest ? written(least) : `${written(least)} to ${written(largest)}`;
  return {
    label,
    range: log ? `${ends}, log` : ends,
    ...extent([place(least), place(largest)], 0),
    ticks: log ? logarithmicTicks(least, largest) : undefined,
    value,
    place,
  };
}
