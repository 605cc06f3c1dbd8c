// Swept hyper-parameters: which matter, and how they go together with cost and accuracy.

function drawImportance() {
  const { objective, trials, shares, why_not: whyNot } = state.data.importance;
  const entries = Object.entries(shares);
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
      html("div", { class: "bar", "aria-hidden": "true" },
        html("div", { class: "filling", style: { width: `${(100 * share) / largest}%` } })),
      html("span", { class: "said" }, `${(100 * share).toFixed(0)} %`),
    ),
  );
  const rough = trials < 50 ? " With fewer than about 50 this is rough." : "";
  const what = `Share of the differences in ${objective} that each hyper-parameter explains, by Optuna's fANOVA, from ${plural(trials, "complete trial")}.${rough}`;
  byId("importance").replaceChildren(html("p", { class: "hint" }, what), html("div", { class: "shares" }, rows));
}

const ROW = 58; // height of an axis of the parallel coordinates

// One axis below the other, so that names fit on a phone too; a trial is a line from the first to the last.
function drawParallel() {
  const holder = byId("parallel");
  const rows = state.data.trials.filter((trial) => trial.status === "complete");
  const axes = parallelAxes(rows);
  if (!rows.length || !axes.length) {
    holder.replaceChildren(html("p", { class: "note" }, "No complete trial yet."));
    return;
  }
  const width = roomOf(holder);
  const height = axes.length * ROW + 6;
  const chart = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${plural(rows.length, "complete trial")} over ${axes.map((axis) => axis.label).join(", ")}; the table of trials has the values`,
  });
  const across = axes.map((axis) => linear(axis, 8, width - 8));
  const level = (index) => index * ROW + 26;
  const lines = rows.map((trial) => ({
    trial,
    places: axes
      .map((axis, index) => ({ at: axis.place(trial), index }))
      .filter(({ at }) => at !== null)
      .map(({ at, index }) => ({ x: across[index](at), y: level(index) })),
  }));
  axes.forEach((axis, index) => {
    chart.append(svg("line", { class: "axis", x1: 8, x2: width - 8, y1: level(index), y2: level(index) }));
  });
  const front = state.data.fronts[`${state.x}/${state.y}`] ?? [];
  const weight = ({ trial }) => (trial.trial === state.selected ? 2 : Number(front.includes(trial.trial)));
  for (const line of [...lines].sort((a, b) => weight(a) - weight(b))) {
    const kind = ["off-front", "on-front", "selected"][weight(line)];
    chart.append(svg("path", { class: `trial-line ${kind}`, d: `M${line.places.map(({ x, y }) => `${x},${y}`).join("L")}` }));
    if (kind === "selected") chart.append(...line.places.map(({ x, y }) => svg("circle", { class: "mark", cx: x, cy: y, r: 4 })));
  }
  axes.forEach((axis, index) => {
    chart.append(svg("text", { class: "label halo", x: 8, y: level(index) - 10 }, clipped(axis.label, width - 16)));
    for (const { at, text: said } of axis.ends) {
      const x = across[index](at);
      const anchor = x < 40 ? "start" : x > width - 40 ? "end" : "middle";
      chart.append(svg("text", { class: "tick halo", x: anchor === "start" ? 8 : x, y: level(index) + 16, "text-anchor": anchor }, said));
    }
  });
  const under = (event) => {
    const at = placeIn(chart, event);
    return nearest(lines, (line) => distanceTo(line.places, at), 14);
  };
  chart.addEventListener("pointermove", (event) => {
    const line = under(event);
    const at = placeIn(chart, event);
    tip(holder, at.x, at.y, line && facts(line.trial));
    chart.classList.toggle("over", line !== null);
  });
  chart.addEventListener("pointerleave", () => tip(holder, 0, 0, null));
  chart.addEventListener("click", (event) => {
    const line = under(event);
    if (line) select(line.trial.trial);
  });
  holder.replaceChildren(html("p", { class: "hint" }, "A line is a trial; colours are those of the front."), chart);
}

// How far a place is from a line, measured across.
function distanceTo(places, at) {
  for (let index = 0; index + 1 < places.length; index += 1) {
    const [above, below] = [places[index], places[index + 1]];
    if (at.y < above.y || at.y > below.y) continue;
    return Math.abs(above.x + ((at.y - above.y) / (below.y - above.y)) * (below.x - above.x) - at.x);
  }
  return Infinity;
}

function parallelAxes(rows) {
  const names = [...new Set(rows.flatMap((trial) => Object.keys(trial.hp)))];
  const swept = names.map((name) => sweptAxis(name, rows.map((trial) => trial.hp[name]), state.data.swept[name] ?? {}));
  const measured = ["gmacs", "top1"].map((column) => {
    const values = rows.map((trial) => trial[column]).filter((value) => value !== undefined);
    if (!values.length) return null;
    const unit = unitOf(column, Math.max(...values));
    return numericAxis(labelled(column, unit), values.map((value) => value * unit.factor), (trial) =>
      has(trial, column) ? trial[column] * unit.factor : null);
  });
  return [...swept, ...measured].filter((axis) => axis !== null);
}

function sweptAxis(name, values, how) {
  const given = values.filter((value) => value !== undefined);
  if (!how.choices && given.every((value) => typeof value === "number")) {
    return numericAxis(name, given, (trial) => trial.hp[name] ?? null, how.log);
  }
  const choices = (how.choices ?? [...new Set(given)]).map(text);
  const place = (trial) => (name in trial.hp ? choices.indexOf(text(trial.hp[name])) : choices.indexOf(text(null)));
  return {
    label: name, low: -0.3, high: choices.length - 0.7,
    place: (trial) => (place(trial) < 0 ? null : place(trial)),
    ends: choices.map((choice, at) => ({ at, text: choice })),
  };
}

function numericAxis(label, values, valueOf, log = false) {
  const bend = log ? Math.log : (value) => value;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const { low: from, high: to } = extent([bend(low), bend(high)], 0);
  const ends = low === high ? [{ at: bend(low), text: number(low) }]
    : [{ at: bend(low), text: number(low) }, { at: bend(high), text: number(high) }];
  return {
    label: log ? `${label} (logarithmic)` : label, low: from, high: to, ends,
    place: (trial) => (valueOf(trial) === null ? null : bend(valueOf(trial))),
  };
}
