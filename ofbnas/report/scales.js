// Scales, ticks and the frame that charts stand in.

// Numbers that are round, about `count` of them, between two values.
function ticks(low, high, count, least = 0) {
  const raw = Math.max(least, (high - low) / Math.max(1, count));
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((times) => times * power >= raw * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick += 1) found.push(tick * step);
  return found.map((tick) => Number(tick.toPrecision(12)));
}

// The width to draw in; a page that is not laid out yet has none.
const roomOf = (holder) => Math.max(240, holder.clientWidth);

// From a least to a largest value, with some air around.
function extent(values, air = 0.06) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const more = high > low ? (high - low) * air : Math.abs(high) * 0.05 || 1;
  return { low: low - more, high: high + more };
}

function linear({ low, high }, from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

// An empty chart with grid lines and labels: its svg, both scales, and the area inside.
function frame(width, height, x, y, attributes) {
  const yTicks = ticks(y.low, y.high, height / 40);
  const left = 14 + 6.5 * Math.max(...yTicks.map((tick) => number(tick).length)) + (y.label ? 16 : 0);
  const area = { left, right: width - 12, top: 10, bottom: height - (x.label ? 40 : 22) };
  const across = linear(x, area.left, area.right);
  const up = linear(y, area.bottom, area.top);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...attributes });
  for (const tick of yTicks) {
    chart.append(
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: up(tick), y2: up(tick) }),
      svg("text", { class: "tick", x: area.left - 6, y: up(tick) + 4, "text-anchor": "end" }, number(tick)),
    );
  }
  for (const tick of ticks(x.low, x.high, (area.right - area.left) / 80, x.whole ? 1 : 0)) {
    if (across(tick) > area.right - 4 && number(tick).length > 4) continue;
    chart.append(
      svg("line", { class: "grid", x1: across(tick), x2: across(tick), y1: area.top, y2: area.bottom }),
      svg("text", { class: "tick", x: across(tick), y: area.bottom + 16, "text-anchor": "middle" }, number(tick)),
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

// The pointer's place in a chart's own units.
function placeIn(chart, event) {
  const box = chart.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function nearest(items, distance, within) {
  let best = null;
  let least = within;
  for (const item of items) {
    const far = distance(item);
    if (far <= least) [best, least] = [item, far];
  }
  return best;
}

// A note beside a point of a chart; null takes it away.
function tip(holder, x, y, lines) {
  holder.querySelector(".tip")?.remove();
  if (lines === null) return;
  const note = html("div", { class: "tip", "aria-hidden": "true" }, lines.map((line) => html("div", {}, line)));
  holder.append(note);
  const room = holder.clientWidth;
  const left = x + 14 + note.offsetWidth > room ? x - note.offsetWidth - 14 : x + 14;
  note.style.left = `${Math.max(0, Math.min(left, room - note.offsetWidth))}px`;
  note.style.top = `${Math.max(0, y - note.offsetHeight / 2)}px`;
}
