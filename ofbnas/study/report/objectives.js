// One objective, or the hypervolume of all, over trials or over a swept hyper-parameter.

const OBJECTIVES_HEIGHT = 260;
const HYPERVOLUME = "hypervolume";

function drawObjectives() {
  const holder = byId("objectives");
  const { objectives } = state.data.study;
  const volumes = state.data.hypervolumes;
  const metrics = [...(volumes.length ? [HYPERVOLUME] : []), ...objectives.map(({ metric }) => metric)];
  const swept = sweptNames();
  drawChoice(byId("objective"), metrics.map((name) => [name, objectiveName(name)]), "objective");
  const over = state.objective === HYPERVOLUME ? [] : swept;
  drawChoice(byId("over"), [["trial", "trials"], ...over.map((name) => [name, name])], "over");

  const points = objectivePoints();
  if (!points.length) {
    holder.replaceChildren(html("p", { class: "note" }, "No complete trial yet."));
    return;
  }
  const values = points.map(({ value }) => value);
  const unit = state.objective === HYPERVOLUME ? { factor: 1, name: "" } : unitOf(state.objective, Math.max(...values));
  const axis = overAxis(points);
  const { chart, across, up, area } = frame(
    widthOf(holder),
    OBJECTIVES_HEIGHT,
    axis,
    { ...extent(values.map((value) => value * unit.factor)), label: objectiveLabel(unit) },
    { role: "img", "aria-label": `${objectiveName(state.objective)} over ${axis.label}; the table of trials has the values` },
  );
  const placed = points.map(({ trial, position, value }) => ({
    trial, x: across(axis.position(position)), y: up(value * unit.factor),
  }));
  if (state.over === "trial") {
    const best = bestSoFar(points).map((value, index) => ({ x: placed[index].x, y: up(value * unit.factor) }));
    chart.append(svg("path", { class: "front-line", d: stepLine(best, area) }));
  }
  const front = state.data.fronts[`${state.x}/${state.y}`] ?? [];
  for (const { trial, x, y } of placed) {
    const kind = front.includes(trial.trial) ? "on-front" : "off-front";
    const selected = trial.trial === state.selected ? " selected" : "";
    chart.append(
      svg(
        "g",
        { class: `point ${kind}${selected}`, "data-trial": trial.trial },
        svg("circle", { class: "ring", cx: x, cy: y, r: 8 }),
        svg("circle", { class: "dot", cx: x, cy: y, r: 4 }),
      ),
    );
  }
  holder.replaceChildren(chart);
  selectByPointer(holder, chart, (pointer) => {
    const distance = (point) => Math.hypot(point.x - pointer.x, point.y - pointer.y);
    return nearest(placed, distance, POINTER_REACH)?.trial ?? null;
  });
}

function objectiveName(name) {
  return name === HYPERVOLUME ? "hypervolume of the front" : state.data.columns[name].short;
}

function objectiveLabel(unit) {
  if (state.objective !== HYPERVOLUME) return labelled(state.objective, unit);
  return "hypervolume of the front so far, share of what is possible";
}

// Complete trials in their order: each with a value, and a position on the horizontal axis.
function objectivePoints() {
  const { trials, hypervolumes } = state.data;
  const volumes = new Map(hypervolumes);
  const complete = trials.filter((trial) => trial.status === "complete").sort((a, b) => a.trial - b.trial);
  return complete
    .map((trial) => ({
      trial,
      position: state.over === "trial" ? trial.trial : trial.hp[state.over],
      value: state.objective === HYPERVOLUME ? volumes.get(trial.trial) : trial[state.objective],
    }))
    .filter(({ position, value }) => !isMissing(position) && !isMissing(value));
}

// A scale for trials or for values of a hyper-parameter: as `frame` takes it, with the position of a value.
function overAxis(points) {
  if (state.over === "trial") {
    const numbers = points.map(({ position }) => position);
    const [low, high] = [Math.min(...numbers) - 0.6, Math.max(...numbers) + 0.6];
    return { low, high, label: "trial", whole: true, position: (value) => value };
  }
  const axis = sweptAxis(state.over, points.map(({ trial }) => trial));
  return { ...axis, ...extent([axis.low, axis.high], axis.choices ? 0 : 0.04), label: state.over, position: axis.place };
}

// The best value up to each point; a hypervolume only ever grows.
function bestSoFar(points) {
  const { direction } = state.data.study.objectives.find(({ metric }) => metric === state.objective) ?? {};
  const better = direction === "minimize" ? Math.min : Math.max;
  let best = points[0].value;
  return points.map(({ value }) => (best = better(best, value)));
}
