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

const FULLEST = 0.55; // opacity of a cell with all options, on which their number can be read in both schemes

function drawHistory() {
  const trial = selectedTrial();
  const beats = trial ? state.data.history[trial.trial] : undefined;
  byId("history").hidden = !beats;
  byId("history-none").replaceChildren(
    beats ? "" : html("p", { class: "note" }, trial ? `Trial ${trial.trial} has no history; it is written when a trial completes.` : "No trial has a row yet."),
  );
  if (!beats) return;
  const last = beats.step.length - 1;
  const beat = Math.min(state.beat ?? last, last);
  const slider = byId("beat");
  slider.max = last;
  slider.value = beat;
  const when = `step ${beats.step[beat].toLocaleString("en")}, epoch ${beats.epoch[beat]}`;
  slider.setAttribute("aria-valuetext", when);
  byId("beat-facts").value = `${when}; ${openAxes(beats, beat)}`;
  const names = Object.keys(CURVES).filter((name) => beats[name].some((value) => value !== null));
  const room = roomOf(byId("curves"));
  const columns = Math.max(1, Math.min(4, Math.floor(room / 240)));
  const width = Math.floor((room - 16 * (columns - 1)) / columns);
  byId("curves").style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  byId("curves").replaceChildren(...names.map((name) => curve(trial, beats, name, beat, width)));
  drawOptions(beats, beat);
}

function openAxes(beats, beat) {
  const open = beats.options.filter((options) => options[beat] > 1).length;
  return `${open} of ${beats.axes.length} axes open`;
}

function curve(trial, beats, name, beat, width) {
  const pairs = beats.step.map((step, index) => ({ step, value: beats[name][index] })).filter(({ value }) => value !== null);
  const values = pairs.map(({ value }) => value);
  const budget = name === "expected_cost" ? trial.budget_share : undefined;
  const label = `${CURVES[name]}: ${number(values[0])} at step ${pairs[0].step}, ${number(values[values.length - 1])} at step ${pairs[pairs.length - 1].step}`;
  const { chart, across, up, area } = frame(
    width, 150,
    extent(beats.step, 0.02),
    extent(budget === undefined ? values : [...values, budget], 0.1),
    { role: "img", "aria-label": label },
  );
  if (budget !== undefined) {
    chart.append(
      svg("line", { class: "limit", x1: area.left, x2: area.right, y1: up(budget), y2: up(budget) }),
      svg("text", { class: "tick halo", x: area.right - 2, y: up(budget) - 4, "text-anchor": "end" }, "budget"),
    );
  }
  const x = across(beats.step[beat]);
  chart.append(svg("line", { class: "cursor", x1: x, x2: x, y1: area.top, y2: area.bottom }));
  const path = pairs.map(({ step, value }) => `${across(step)},${up(value)}`).join("L");
  chart.append(svg("path", { class: "curve", d: `M${path}` }));
  const here = beats[name][beat];
  if (here !== null) chart.append(svg("circle", { class: "mark", cx: x, cy: up(here), r: 3.5 }));
  followPointer(chart, beats, (at) => nearest(beats.step.keys(), (index) => Math.abs(across(beats.step[index]) - at.x), Infinity));
  const heading = html("figcaption", {}, html("span", {}, CURVES[name]), html("b", {}, here === null ? "\u2013" : number(here)));
  return html("figure", {}, heading, chart);
}

// Rows are axes, columns are beats; the more options are left, the fuller the colour.
function drawOptions(beats, beat) {
  const holder = byId("options");
  const width = roomOf(holder);
  const longest = Math.max(...beats.axes.map((axis) => axis.length)) * 6.3;
  const left = Math.min(longest, width * 0.36) + 8;
  const [row, wide] = [18, (width - left - 4) / beats.step.length];
  const height = beats.axes.length * row + 24;
  const chart = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Options left over ${plural(beats.step.length, "beat")}: ${beats.axes.map((axis, index) => `${axis} from ${beats.options[index][0]} to ${beats.options[index][beats.step.length - 1]}`).join(", ")}`,
  });
  beats.axes.forEach((axis, index) => {
    const options = beats.options[index];
    const most = Math.log(Math.max(2, ...options));
    const y = index * row;
    chart.append(svg("text", { class: "tick", x: left - 8, y: y + 13, "text-anchor": "end" }, clipped(axis, left - 8)));
    for (const [from, to] of runs(options)) {
      const share = options[from] === null ? 0 : Math.log(Math.max(1, options[from])) / most;
      const room = (to - from) * wide;
      const x = left + from * wide;
      chart.append(
        svg("rect", { class: "cell none", x, y: y + 1, width: room, height: row - 2 }),
        svg("rect", { class: "cell", x, y: y + 1, width: room, height: row - 2, style: { fillOpacity: FULLEST * share } }),
      );
      if (options[from] !== null && room > 8 + 7 * String(options[from]).length) {
        chart.append(svg("text", { class: "count", x: x + 4, y: y + 13 }, String(options[from])));
      }
    }
  });
  const bottom = beats.axes.length * row;
  const every = Math.ceil(56 / wide);
  for (let index = 0; index < beats.step.length; index += every) {
    const middle = left + (index + 0.5) * wide;
    chart.append(svg("text", { class: "tick", x: middle, y: bottom + 16, "text-anchor": "middle" }, number(beats.step[index])));
  }
  chart.append(svg("rect", { class: "cursor", x: left + beat * wide, y: 0, width: wide, height: bottom }));
  followPointer(chart, beats, (at) => {
    const index = Math.floor((at.x - left) / wide);
    return index < 0 || index >= beats.step.length ? null : index;
  });
  const hint = "Columns are beats, labelled with their step; full colour is all options of an axis, none is one: decided.";
  holder.replaceChildren(html("p", { class: "hint" }, hint), chart);
}

// Stretches of equal values, as [from, to).
function runs(values) {
  const found = [];
  values.forEach((value, index) => {
    if (index && value === values[index - 1]) found[found.length - 1][1] = index + 1;
    else found.push([index, index + 1]);
  });
  return found;
}

function followPointer(chart, beats, beatAt) {
  chart.addEventListener("click", (event) => {
    const beat = beatAt(placeIn(chart, event));
    if (beat === null) return;
    state.beat = beat;
    drawHistory();
  });
}
