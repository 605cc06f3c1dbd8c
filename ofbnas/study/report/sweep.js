// Swept hyper-parameters: how important each is, and how they relate to cost and accuracy.

const FEW_TRIALS = 50; // importances from fewer trials are rough
const AXIS_ROW = 58; // height of an axis of the parallel coordinates
const AXIS_MARGIN = 8; // pixels left and right of an axis
const LINE_REACH = 14; // pixels within which the pointer selects a line

function drawImportance() {
  const { evaluator, shares, why_not: whyNot } = state.data.importance;
  const entries = Object.entries(shares);
  const title = "Hyper-parameter importance";
  byId("importance-title").textContent = entries.length ? `${title} (${evaluator})` : title;
  if (!entries.length) {
    byId("importance").replaceChildren(html("p", { class: "note" }, whyNot));
    return;
  }
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
  byId("importance").replaceChildren(
    html("p", { class: "hint" }, importanceHint()),
    html("div", { class: "shares" }, rows),
  );
}

function importanceHint() {
  const { evaluator, objective, trials } = state.data.importance;
  const what = `Share of the variance of ${objective} that each hyper-parameter explains`;
  const from = `by Optuna's ${evaluator}, from ${plural(trials, "complete trial")}`;
  const rough = trials < FEW_TRIALS ? ` With fewer than about ${FEW_TRIALS} this is rough.` : "";
  return `${what}, ${from}.${rough}`;
}

// Axes lie one below the other, so that names fit on a phone too; a trial is a line across all of them.
function drawParallel() {
  const holder = byId("parallel");
  const rows = state.data.trials.filter((trial) => trial.status === "complete");
  const axes = parallelAxes(rows);
  if (!rows.length || !axes.length) {
    holder.replaceChildren(html("p", { class: "note" }, "No complete trial yet."));
    return;
  }
  const width = widthOf(holder);
  const height = axes.length * AXIS_ROW + 6;
  const names = axes.map((axis) => axis.label).join(", ");
  const chart = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${plural(rows.length, "complete trial")} over ${names}; the table of trials has the values`,
  });

  const scales = axes.map((axis) => linear(axis, AXIS_MARGIN, width - AXIS_MARGIN));
  const level = (index) => index * AXIS_ROW + 26;
  axes.forEach((axis, index) => {
    const y = level(index);
    chart.append(svg("line", { class: "axis", x1: AXIS_MARGIN, x2: width - AXIS_MARGIN, y1: y, y2: y }));
  });
  const lines = rows.map((trial) => ({ trial, points: pointsOf(trial, axes, scales, level) }));
  chart.append(...trialLines(lines));
  axes.forEach((axis, index) => chart.append(...axisTexts(axis, scales[index], level(index), width)));

  selectByPointer(holder, chart, (pointer) => {
    const line = nearest(lines, ({ points }) => distanceTo(points, pointer), LINE_REACH);
    return line && { trial: line.trial, x: pointer.x, y: pointer.y };
  });
  holder.replaceChildren(html("p", { class: "hint" }, "Each line is a trial; colors are those of the front."), chart);
}

// Where a trial's line crosses each axis that it has a value on.
function pointsOf(trial, axes, scales, level) {
  return axes
    .map((axis, index) => ({ position: axis.position(trial), index }))
    .filter(({ position }) => position !== null)
    .map(({ position, index }) => ({ x: scales[index](position), y: level(index) }));
}

// Lines, with marks on the selected one, which is drawn last; those of the front come just before it.
function trialLines(lines) {
  const front = state.data.fronts[`${state.x}/${state.y}`] ?? [];
  const rank = ({ trial }) => (trial.trial === state.selected ? 2 : Number(front.includes(trial.trial)));
  const elements = [];
  for (const line of [...lines].sort((a, b) => rank(a) - rank(b))) {
    const kind = ["off-front", "on-front", "selected"][rank(line)];
    const path = line.points.map(({ x, y }) => `${x},${y}`).join("L");
    elements.push(svg("path", { class: `trial-line ${kind}`, d: `M${path}` }));
    if (kind === "selected") {
      elements.push(...line.points.map(({ x, y }) => svg("circle", { class: "mark", cx: x, cy: y, r: 4 })));
    }
  }
  return elements;
}

function axisTexts(axis, scale, y, width) {
  const name = clipped(axis.label, width - 2 * AXIS_MARGIN);
  const texts = [svg("text", { class: "label halo", x: AXIS_MARGIN, y: y - 10 }, name)];
  for (const { position, label } of axis.ticks) {
    let x = scale(position);
    let anchor = "middle";
    if (x < 40) {
      anchor = "start";
      x = AXIS_MARGIN;
    } else if (x > width - 40) {
      anchor = "end";
    }
    texts.push(svg("text", { class: "tick halo", x, y: y + 16, "text-anchor": anchor }, label));
  }
  return texts;
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

// Axes of the swept fields, then of cost and accuracy: label, range, ticks, and a trial's position or null.
function parallelAxes(rows) {
  const names = [...new Set(rows.flatMap((trial) => Object.keys(trial.hp)))];
  const swept = names.map((name) => sweptAxis(name, rows));
  const measured = ["gmacs", "top1"].filter((column) => rows.some((trial) => trial[column] !== undefined));
  return [...swept, ...measured.map((column) => measuredAxis(column, rows))];
}

function measuredAxis(column, rows) {
  const values = rows.map((trial) => trial[column]).filter((value) => value !== undefined);
  const unit = unitOf(column, Math.max(...values));
  const valueOf = (trial) => (has(trial, column) ? trial[column] * unit.factor : null);
  return numericAxis(labelled(column, unit), values.map((value) => value * unit.factor), valueOf);
}

function sweptAxis(name, rows) {
  const declared = state.data.swept[name] ?? {};
  const given = rows.map((trial) => trial.hp[name]).filter((value) => value !== undefined);
  if (!declared.choices && given.every((value) => typeof value === "number")) {
    return numericAxis(name, given, (trial) => trial.hp[name] ?? null, declared.log);
  }
  const choices = (declared.choices ?? [...new Set(given)]).map(plainText);
  const position = (trial) => {
    const index = choices.indexOf(plainText(trial.hp[name]));
    return index < 0 ? null : index;
  };
  return {
    label: name,
    low: -0.3,
    high: choices.length - 0.7,
    ticks: choices.map((label, index) => ({ position: index, label })),
    position,
  };
}

function numericAxis(label, values, valueOf, log = false) {
  const transform = log ? Math.log : (value) => value;
  const least = Math.min(...values);
  const largest = Math.max(...values);
  const ends = least === largest ? [least] : [least, largest];
  return {
    label: log ? `${label} (logarithmic)` : label,
    ...extent([transform(least), transform(largest)], 0),
    ticks: ends.map((value) => ({ position: transform(value), label: formatNumber(value) })),
    position: (trial) => {
      const value = valueOf(trial);
      return value === null ? null : transform(value);
    },
  };
}
