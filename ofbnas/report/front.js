// The front: all trials by cost and quality, those that no other beats, and the parent.

function drawFront() {
  const { x, y } = state;
  const holder = byId("front");
  const rows = state.data.trials.filter((trial) => trial.status === "complete" && has(trial, x) && has(trial, y));
  if (!rows.length) {
    const missing = `No trial has a cost and an accuracy yet.`;
    holder.replaceChildren(html("p", { class: "note" }, missing));
    byId("front-legend").replaceChildren();
    return;
  }
  const parent = { x: state.data.parent[x] ?? null, y: state.data.parent[y] ?? null };
  const known = parent.x !== null && parent.y !== null;
  const xs = rows.map((trial) => trial[x]).concat(known ? [parent.x] : []);
  const ys = rows.map((trial) => trial[y]).concat(known ? [parent.y] : []);
  const units = { x: unitOf(x, Math.max(...xs)), y: unitOf(y, Math.max(...ys)) };
  const width = roomOf(holder);
  const { chart, across, up, area } = frame(
    width,
    Math.max(260, Math.min(420, width * 0.68)),
    { ...extent(xs.map((value) => value * units.x.factor)), label: labelled(x, units.x) },
    { ...extent(ys), label: labelled(y, units.y) },
    { role: "group", "aria-label": `Trials by ${COLUMNS[y].label} and ${COLUMNS[x].label}` },
  );
  const front = state.data.fronts[`${x}/${y}`] ?? [];
  const places = new Map(
    rows.map((trial) => [trial.trial, { x: across(trial[x] * units.x.factor), y: up(trial[y]), trial }]),
  );
  chart.append(svg("path", { class: "front-line", d: stepLine(front.map((number) => places.get(number)), area) }));
  if (known) {
    const star = starAt(across(parent.x * units.x.factor), up(parent.y), 9);
    chart.append(svg("path", { class: "parent", d: star, role: "img", "aria-label": "parent" }));
  }
  const drawn = [...places.values()].sort((a, b) => front.includes(a.trial.trial) - front.includes(b.trial.trial));
  const stop = places.has(state.selected) ? state.selected : rows[0].trial;
  for (const place of drawn) chart.append(point(place, front.includes(place.trial.trial), stop, places));
  const under = (event) => {
    const at = placeIn(chart, event);
    return nearest(places.values(), (place) => Math.hypot(place.x - at.x, place.y - at.y), 28);
  };
  chart.addEventListener("pointermove", (event) => {
    const place = under(event);
    tip(holder, place?.x, place?.y, place && facts(place.trial));
    chart.classList.toggle("over", place !== null);
  });
  chart.addEventListener("pointerleave", () => tip(holder, 0, 0, null));
  chart.addEventListener("click", (event) => {
    const place = under(event);
    if (place) select(place.trial.trial);
  });
  holder.replaceChildren(chart);
  const entries = [["key-front", "front"], ["key-other", "other trials"], ["key-selected", "selected"]];
  if (known) entries.push(["key-parent", "parent"]);
  byId("front-legend").replaceChildren(
    ...entries.map(([kind, label]) => html("span", {}, html("i", { class: kind, "aria-hidden": "true" }), label)),
    ...(known ? [] : [html("span", {}, `the parent's ${parent.y === null ? COLUMNS[y].short : COLUMNS[x].short} is not recorded`)]),
  );
}

// One trial; among all of them only `stop` is in the order of the Tab key, arrows go from one to the next.
function point(place, onFront, stop, places) {
  const { trial } = place;
  const selected = trial.trial === state.selected;
  const move = (event) => {
    const order = [...places.values()].sort((a, b) => a.x - b.x || a.y - b.y).map((other) => other.trial.trial);
    const here = order.indexOf(trial.trial);
    const steps = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: order.length - 1 };
    if (event.key in steps) focusKey(`point-${order[Math.max(0, Math.min(order.length - 1, steps[event.key]))]}`);
    else if (event.key === "Enter" || event.key === " ") select(trial.trial);
    else return;
    event.preventDefault();
  };
  return svg(
    "g",
    {
      class: `point ${onFront ? "on-front" : "off-front"}${selected ? " selected" : ""}`,
      role: "button",
      tabindex: trial.trial === stop ? 0 : -1,
      "aria-pressed": String(selected),
      "aria-label": `${onFront ? "on the front: " : ""}${facts(trial).join(", ")}`,
      "data-key": `point-${trial.trial}`,
      onkeydown: move,
      onfocus: () => tip(byId("front"), place.x, place.y, facts(trial)),
      onblur: () => tip(byId("front"), 0, 0, null),
    },
    svg("circle", { class: "ring", cx: place.x, cy: place.y, r: 9 }),
    svg("circle", { class: "dot", cx: place.x, cy: place.y, r: onFront ? 5 : 4.5 }),
  );
}

// What a trial is, line by line.
function facts(trial) {
  const lines = [`trial ${trial.trial}${trial.arch_id ? `: ${trial.arch_id}` : ""}`];
  for (const column of [...QUALITIES, ...COSTS]) {
    if (has(trial, column)) lines.push(`${COLUMNS[column].short} ${shown(column, trial[column])}`);
  }
  const { embed, blocks } = trial.architecture ?? {};
  if (embed) lines.push(`embedding ${embed.join(", ")}; ${plural(blocks.length, "block")}`);
  return lines.concat(Object.entries(trial.hp).map(([name, value]) => `${name} ${text(value)}`));
}

// What is reached at each cost: up to the next place along the front nothing better, and so to the edge.
function stepLine(places, area) {
  if (!places.length) return "";
  const [first, ...rest] = places;
  return `M${first.x},${first.y}${rest.map((place) => `H${place.x}V${place.y}`).join("")}H${area.right}`;
}

function starAt(x, y, radius) {
  const corners = [...Array(10).keys()].map((corner) => {
    const far = corner % 2 ? radius * 0.42 : radius;
    const turn = (Math.PI * corner) / 5;
    return `${x + far * Math.sin(turn)},${y - far * Math.cos(turn)}`;
  });
  return `M${corners.join("L")}Z`;
}
