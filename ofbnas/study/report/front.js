// The front: all trials by cost and quality, those that no other dominates, and the parent.

const POINTER_REACH = 28; // pixels within which the pointer selects a point

function drawFront() {
  const { x, y } = state;
  const holder = byId("front");
  const warnings = state.data.warnings[y] ?? [];
  byId("front-warnings").replaceChildren(...warnings.map((warning) => html("li", {}, warning)));
  const rows = state.data.trials.filter((trial) => trial.status === "complete" && has(trial, x) && has(trial, y));
  if (!rows.length) {
    holder.replaceChildren(html("p", { class: "note" }, "No trial has a cost and an accuracy yet."));
    byId("front-legend").replaceChildren();
    return;
  }

  const parent = state.data.parent;
  const parentKnown = !isMissing(parent[x]) && !isMissing(parent[y]);
  const shown = parentKnown ? [...rows, parent] : rows;
  const { chart, across, up, area } = frontFrame(shown, widthOf(holder));

  const front = state.data.fronts[`${x}/${y}`] ?? [];
  const points = new Map(rows.map((trial) => [trial.trial, { x: across(trial), y: up(trial), trial }]));
  const corners = front.map((trial) => points.get(trial));
  const bands = alikeButForTheSeed(rows).map((alike) => alike.map((trial) => points.get(trial.trial)));
  chart.append(...bands.map(band));
  chart.append(svg("path", { class: "front-line", d: stepLine(corners, area) }));
  if (parentKnown) {
    const star = starAt(across(parent), up(parent), 9);
    chart.append(svg("path", { class: "parent", d: star, role: "img", "aria-label": parentName() }));
  }

  // Points of the front are drawn last, so that no others cover them.
  const isOnFront = ({ trial }) => front.includes(trial.trial);
  const drawn = [...points.values()].sort((a, b) => isOnFront(a) - isOnFront(b));
  const tabStop = points.has(state.selected) ? state.selected : rows[0].trial;
  for (const point of drawn) chart.append(drawPoint(point, isOnFront(point), tabStop, points));

  holder.replaceChildren(chart);
  selectByPointer(holder, chart, (pointer) => {
    const distance = ({ x: left, y: top }) => Math.hypot(left - pointer.x, top - pointer.y);
    return nearest(points.values(), distance, POINTER_REACH)?.trial ?? null;
  });
  drawLegend(parentKnown, bands.length > 0);
}

// The frame of the front; its scales take anything that has values of both columns: trials and the parent.
function frontFrame(shown, width) {
  const { x, y } = state;
  const { columns } = state.data;
  const xs = shown.map((values) => values[x]);
  const ys = shown.map((values) => values[y]);
  const xUnit = unitOf(x, Math.max(...xs));
  const yUnit = unitOf(y, Math.max(...ys));
  const height = Math.max(260, Math.min(420, width * 0.68));
  const made = frame(
    width,
    height,
    { ...extent(xs.map((value) => value * xUnit.factor)), label: labelled(x, xUnit) },
    { ...extent(ys), label: labelled(y, yUnit) },
    { role: "group", "aria-label": `Trials by ${columns[y].label} and ${columns[x].label}` },
  );
  return {
    chart: made.chart,
    area: made.area,
    across: (values) => made.across(values[x] * xUnit.factor),
    up: (values) => made.up(values[y]),
  };
}

const parentName = () => `parent: ${state.data.study.model}`;

// Groups of several trials with the same hyper-parameters, which differ by their seed alone.
function alikeButForTheSeed(rows) {
  const groups = new Map();
  for (const trial of rows) {
    const key = JSON.stringify(Object.entries(trial.hp).sort());
    groups.set(key, [...(groups.get(key) ?? []), trial]);
  }
  return [...groups.values()].filter((alike) => alike.length > 1);
}

// The range of cost and quality that points cover.
function band(points) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const box = { x: left - 6, y: top - 6, width: Math.max(...xs) - left + 12, height: Math.max(...ys) - top + 12 };
  return svg("rect", { class: "band", rx: 6, ...box });
}

function drawLegend(parentKnown, withBands) {
  const { parent, columns } = state.data;
  const keys = [["key-front", "front"], ["key-other", "other trials"], ["key-selected", "selected"]];
  if (parentKnown) keys.push(["key-parent", parentName()]);
  if (withBands) keys.push(["key-band", "same settings, different seeds"]);
  const entries = keys.map(([kind, label]) => html("span", {}, html("i", { class: kind, "aria-hidden": "true" }), label));
  if (!parentKnown) {
    const missing = isMissing(parent[state.y]) ? state.y : state.x;
    entries.push(html("span", {}, `the parent's ${columns[missing].short} is not recorded`));
  }
  byId("front-legend").replaceChildren(...entries);
}

// One trial. Only `tabStop` among them is reached by the Tab key; arrows go from one to the next.
function drawPoint({ x, y, trial }, onFront, tabStop, points) {
  const selected = trial.trial === state.selected;
  const move = (event) => {
    const byPosition = [...points.values()].sort((a, b) => a.x - b.x || a.y - b.y);
    const order = byPosition.map((point) => point.trial.trial);
    const here = order.indexOf(trial.trial);
    const targets = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: order.length - 1 };
    if (event.key in targets) {
      const target = Math.max(0, Math.min(order.length - 1, targets[event.key]));
      focusKey(`point-${order[target]}`);
    } else if (event.key === "Enter" || event.key === " ") {
      select(trial.trial);
    } else {
      return;
    }
    event.preventDefault();
  };
  return svg(
    "g",
    {
      class: `point ${onFront ? "on-front" : "off-front"}${selected ? " selected" : ""}`,
      role: "button",
      tabindex: trial.trial === tabStop ? 0 : -1,
      "aria-pressed": String(selected),
      "aria-label": `${onFront ? "on the front: " : ""}${trialFacts(trial).join(", ")}`,
      "data-key": `point-${trial.trial}`,
      "data-trial": trial.trial,
      onkeydown: move,
      onfocus: () => pointOut(byId("front"), trial),
      onblur: () => pointOut(byId("front"), null),
    },
    svg("circle", { class: "ring", cx: x, cy: y, r: 9 }),
    svg("circle", { class: "dot", cx: x, cy: y, r: onFront ? 5 : 4.5 }),
  );
}

// What is known about a trial, line by line.
function trialFacts(trial) {
  const title = `trial ${trial.trial}`;
  const lines = [trial.arch_id ? `${title}: ${trial.arch_id}` : title];
  for (const column of [...withRole("quality"), ...withRole("cost")]) {
    if (has(trial, column)) lines.push(`${state.data.columns[column].short} ${formatValue(column, trial[column])}`);
  }
  const { embed, blocks } = trial.architecture ?? {};
  if (embed) lines.push(`embedding ${embed.join(", ")}; ${plural(blocks.length, "block")}`);
  return lines.concat(Object.entries(trial.hp).map(([name, value]) => `${name} ${plainText(value)}`));
}

// The best quality at each cost: it is constant up to the next point of the front, and after the last one.
function stepLine(points, area) {
  if (!points.length) return "";
  const [first, ...rest] = points;
  const steps = rest.map(({ x, y }) => `H${x}V${y}`).join("");
  return `M${first.x},${first.y}${steps}H${area.right}`;
}

function starAt(x, y, radius) {
  const corners = [...Array(10).keys()].map((corner) => {
    const reach = corner % 2 ? radius * 0.42 : radius;
    const turn = (Math.PI * corner) / 5;
    return `${x + reach * Math.sin(turn)},${y - reach * Math.cos(turn)}`;
  });
  return `M${corners.join("L")}Z`;
}
