// What the study has spent: trials by how they ended, and their time.

const ENDINGS = { complete: "complete", failed: "failed", pruned: "pruned (stopped early)", begun: "begun (no row yet)", waiting: "not begun" };

function drawCosts() {
  const { trials, study } = state.data;
  const counts = Object.fromEntries(Object.keys(ENDINGS).map((name) => [name, trials.filter((trial) => trial.status === name).length]));
  counts.waiting = Math.max(0, study.wanted - trials.length);
  const timed = trials.filter((trial) => has(trial, "seconds"));
  const seconds = timed.map((trial) => trial.seconds).sort((a, b) => a - b);
  const terms = [
    ["Trials", Object.entries(ENDINGS).filter(([name]) => counts[name]).map(([name, label]) => `${counts[name]} ${label}`).join(", ") || "none"],
  ];
  if (seconds.length) {
    const middle = (seconds[Math.floor((seconds.length - 1) / 2)] + seconds[Math.ceil((seconds.length - 1) / 2)]) / 2;
    terms.push(
      ["Time of all trials together", shown("seconds", sum(seconds))],
      ["Median of a trial", shown("seconds", middle)],
      ["Longest", shown("seconds", seconds[seconds.length - 1])],
    );
  }
  const untimed = counts.failed ? " Failed trials record no time." : "";
  const devices = [...new Set(trials.map((trial) => trial.device).filter(Boolean))];
  byId("costs-facts").replaceChildren(
    html("dl", {}, terms.map(([term, said]) => html("div", {}, html("dt", {}, term), html("dd", {}, said)))),
    seconds.length
      ? html("p", { class: "hint" }, `Times are of search and fine-tuning on ${devices.join(", ") || "one device"}; trials may run side by side.${untimed}`)
      : html("p", { class: "note" }, `No trial has recorded its time yet.${untimed}`),
  );
  byId("costs").replaceChildren(...(seconds.length ? [timeBars(timed)] : []));
}

function timeBars(timed) {
  const holder = byId("costs");
  const unit = unitOf("seconds", Math.max(...timed.map((trial) => trial.seconds)));
  const numbers = timed.map((trial) => trial.trial);
  const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
  const { chart, across, up, area } = frame(
    roomOf(holder), 200,
    { low: first - 0.6, high: last + 0.6, label: "trial", whole: true },
    { low: 0, high: Math.max(...timed.map((trial) => trial.seconds)) * unit.factor * 1.08, label: `time, ${unit.name}` },
    { role: "img", "aria-label": `Time of each trial, ${plural(timed.length, "trial")}; the table of trials has the values` },
  );
  const wide = Math.max(1, Math.min(36, (across(1) - across(0)) * 0.7));
  for (const trial of timed) {
    const top = up(trial.seconds * unit.factor);
    const kind = trial.trial === state.selected ? "selected" : "";
    chart.append(svg("rect", { class: `time ${kind}`, x: across(trial.trial) - wide / 2, y: top, width: wide, height: area.bottom - top }));
  }
  chart.addEventListener("click", (event) => {
    const at = placeIn(chart, event);
    const trial = nearest(timed, (one) => Math.abs(across(one.trial) - at.x), Math.max(8, wide));
    if (trial) select(trial.trial);
  });
  return chart;
}
