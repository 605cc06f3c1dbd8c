// Scales, ticks and the frame of charts, and how they respond to a pointer.

const TIP_GAP = 14; // pixels between a point and the facts beside it

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
function frame(width, height, x, y, attributes) {
  const yTicks = ticks(y.low, y.high, height / 40);
  const longest = Math.max(...yTicks.map((tick) => formatNumber(tick).length));
  const left = 14 + 6.5 * longest + (y.label ? 16 : 0);
  const area = { left, right: width - 12, top: 10, bottom: height - (x.label ? 40 : 22) };
  const across = linear(x, area.left, area.right);
  const up = linear(y, area.bottom, area.top);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...attributes });
  for (const tick of yTicks) {
    chart.append(
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: up(tick), y2: up(tick) }),
      svg("text", { class: "tick", x: area.left - 6, y: up(tick) + 4, "text-anchor": "end" }, formatNumber(tick)),
    );
  }
  for (const tick of ticks(x.low, x.high, (area.right - area.left) / 80, x.whole ? 1 : 0)) {
    if (across(tick) > area.right - 4 && formatNumber(tick).length > 4) continue; // it would be cut off
    chart.append(
      svg("line", { class: "grid", x1: across(tick), x2: across(tick), y1: area.top, y2: area.bottom }),
      svg("text", { class: "tick", x: across(tick), y: area.bottom + 16, "text-anchor": "middle" }, formatNumber(tick)),
    );
  }
  if (x.label) {
    const middle = (area.left + area.right) / 2;
    chart.append(svg("text", { class: "label", x: middle, y: height - 6, "text-anchor": "middle" }, x.label));
  }
  if (y.label) {
    const middle = (area.top + area.bottom) / 2;
    const turned = `rotate(-90 12 ${middle})`;
    chart.append(svg("text", { class: "label", x: 12, y: middle, "text-anchor": "middle", transform: turned }, y.label));
  }
  return { chart, across, up, area };
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

// Show the facts of a trial where the pointer is near one, and select it by a click.
// `find` takes the pointer and gives a trial and where its tip goes, or null.
function selectByPointer(holder, chart, find) {
  chart.addEventListener("pointermove", (event) => {
    const target = find(pointerIn(chart, event));
    showTip(holder, target);
    chart.classList.toggle("over", target !== null);
  });
  chart.addEventListener("pointerleave", () => showTip(holder, null));
  chart.addEventListener("click", (event) => {
    const target = find(pointerIn(chart, event));
    if (target) select(target.trial.trial);
  });
}

// The facts of a trial beside a point of a chart; null removes them.
function showTip(holder, target) {
  holder.querySelector(".tip")?.remove();
  if (target === null) return;
  const lines = trialFacts(target.trial).map((line) => html("div", {}, line));
  const tip = html("div", { class: "tip", "aria-hidden": "true" }, lines);
  holder.append(tip); // its size is known only from here on
  const width = holder.clientWidth;
  const fitsRight = target.x + TIP_GAP + tip.offsetWidth <= width;
  const left = fitsRight ? target.x + TIP_GAP : target.x - tip.offsetWidth - TIP_GAP;
  tip.style.left = `${Math.max(0, Math.min(left, width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, target.y - tip.offsetHeight / 2)}px`;
}
