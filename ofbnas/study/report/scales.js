// Scales, ticks and the frame of charts, and how they respond to a pointer.

// Round numbers, about `count` of them, between two values; with a least step, multiples of it. The tolerances absorb
// rounding errors.
function ticks(low, high, count, leastStep = 0) {
  const wanted = Math.max(leastStep, (high - low) / Math.max(1, count));
  const power = 10 ** Math.floor(Math.log10(wanted));
  const isAllowed = (times) => !leastStep || Number.isInteger((times * power) / leastStep);
  const step = power * [1, 2, 2.5, 5, 10].find((times) => times * power >= wanted * 0.999 && isAllowed(times));
  const result = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    result.push(Number((index * step).toPrecision(12)));
  }
  return result;
}

// Ticks of a logarithmic axis, at 1, 2 and 5 times powers of ten, or at its ends where there are too few of these.
function logarithmicTicks(low, high) {
  const round = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    round.push(...[1, 2, 5].map((times) => Number((times * 10 ** power).toPrecision(12))));
  }
  const inside = round.filter((value) => value >= low && value <= high);
  const values = inside.length > 1 ? inside : [...new Set([low, high])];
  return values.map((value) => ({ position: Math.log(value), label: formatNumber(value) }));
}

// The width to draw in; before the page is laid out, elements have no width.
const widthOf = (holder) => Math.max(240, holder.clientWidth);

// The range of values, with a margin on both sides.
function extent(values, margin = 0.06) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  // Equal values get a margin too, since a scale cannot have length 0.
  const added = high > low ? (high - low) * margin : Math.abs(high) * 0.05 || 1;
  return { low: low - added, high: high + added };
}

function linear({ low, high }, from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

// An empty chart with grid lines and labels: its svg, both scales, and the area inside.
// The label of the vertical axis stands above it, where it can be read and has the whole width.
function frame(width, height, x, y, attributes) {
  const yTicks = ticks(y.low, y.high, height / 40);
  const longest = Math.max(...yTicks.map((tick) => formatNumber(tick).length));
  const left = 14 + 6.5 * longest;
  const area = { left, right: width - 12, top: y.label ? 28 : 10, bottom: height - (x.label ? 40 : 22) };
  const across = linear(x, area.left, area.right);
  const up = linear(y, area.bottom, area.top);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...attributes });
  for (const tick of yTicks) {
    chart.append(
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: up(tick), y2: up(tick) }),
      svg("text", { class: "tick", x: area.left - 6, y: up(tick) + 4, "text-anchor": "end" }, formatNumber(tick)),
    );
  }
  let free = 0; // where the last label ended
  for (const { position, label } of x.ticks ?? roundTicks(x, area)) {
    const at = across(position);
    chart.append(svg("line", { class: "grid", x1: at, x2: at, y1: area.top, y2: area.bottom }));
    const half = (CHARACTER * label.length) / 2;
    if (at + half > width || at - half < free) continue; // it would be cut off, or run into the last one
    free = at + half + CHARACTER;
    chart.append(svg("text", { class: "tick", x: at, y: area.bottom + 16, "text-anchor": "middle" }, label));
  }
  if (x.label) {
    const middle = (area.left + area.right) / 2;
    chart.append(svg("text", { class: "label", x: middle, y: height - 6, "text-anchor": "middle" }, x.label));
  }
  if (y.label) chart.append(svg("text", { class: "label", x: 0, y: 14 }, y.label));
  return { chart, across, up, area };
}

function roundTicks(x, area) {
  const values = ticks(x.low, x.high, (area.right - area.left) / 80, x.whole ? 1 : 0);
  return values.map((position) => ({ position, label: formatNumber(position) }));
}

// Where a pointer is, in a chart's own units.
function pointerIn(chart, event) {
  const box = chart.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

// The item with the least distance, the last of equally near ones; null where none is within reach.
function nearest(items, distance, reach) {
  let best = null;
  let least = reach;
  for (const item of items) {
    const current = distance(item);
    if (current <= least) {
      best = item;
      least = current;
    }
  }
  return best;
}

// Show the facts of a trial that the pointer is near, and select it by a click.
// `find` takes the pointer and gives a trial, or null. The facts stand below the chart, so they hide nothing of it;
// while the pointer is elsewhere they are the selected trial's.
function selectByPointer(holder, chart, find) {
  holder.append(html("p", { class: "tip", "aria-hidden": "true" }));
  pointOut(holder, null);
  chart.addEventListener("pointermove", (event) => {
    const trial = find(pointerIn(chart, event));
    pointOut(holder, trial);
    chart.classList.toggle("over", trial !== null);
  });
  chart.addEventListener("pointerleave", () => pointOut(holder, null));
  chart.addEventListener("click", (event) => {
    const trial = find(pointerIn(chart, event));
    if (trial) select(trial.trial);
  });
}

// Mark a trial in a chart and show its facts; null stands for the selected one.
function pointOut(holder, trial) {
  for (const marked of holder.querySelectorAll(".pointed")) marked.classList.remove("pointed");
  if (trial) holder.querySelector(`[data-trial="${trial.trial}"]`)?.classList.add("pointed");
  const shown = trial ?? selectedTrial();
  const facts = shown ? trialFacts(shown) : [];
  holder.querySelector(".tip").replaceChildren(...facts.map((words) => html("span", {}, words)));
}
