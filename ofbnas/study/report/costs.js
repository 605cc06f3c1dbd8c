// What the study has spent: trials by how they ended, and their time.

const STATES = {
  complete: "complete",
  failed: "failed",
  pruned: "pruned (stopped early)",
  running: "running (no row yet)",
  waiting: "not started",
};
const WIDEST_BAR = 36; // pixels

function drawCosts() {
  const { trials } = state.data;
  const timed = trials.filter((trial) => has(trial, "seconds"));
  const failures = trials.some((trial) => trial.status === "failed");
  const untimed = failures ? " Failed trials record no time." : "";
  const terms = [["Trials", trialCounts()], ...(timed.length ? timeTerms(timed) : [])];
  const items = terms.map(([term, value]) => html("div", {}, html("dt", {}, term), html("dd", {}, value)));
  byId("costs-facts").replaceChildren(html("dl", {}, items), costsNote(timed, untimed));
  byId("costs").replaceChildren(...(timed.length ? [timeBars(timed)] : []));
}

function trialCounts() {
  const { trials, study } = state.data;
  const counts = { waiting: Math.max(0, study.wanted - trials.length) };
  for (const trial of trials) counts[trial.status] = (counts[trial.status] ?? 0) + 1;
  const present = Object.keys(STATES).filter((name) => counts[name]);
  return present.map((name) => `${counts[name]} ${STATES[name]}`).join(", ") || "none";
}

function timeTerms(timed) {
  const seconds = timed.map((trial) => trial.seconds).sort((a, b) => a - b);
  const middle = (seconds.length - 1) / 2;
  const median = (seconds[Math.floor(middle)] + seconds[Math.ceil(middle)]) / 2;
  return [
    ["Time of all trials together", formatValue("seconds", sum(seconds))],
    ["Median of a trial", formatValue("seconds", median)],
    ["Longest", formatValue("seconds", seconds[seconds.length - 1])],
  ];
}

function costsNote(timed, untimed) {
  if (!timed.length) return html("p", { class: "note" }, `No trial has recorded its time yet.${untimed}`);
  const devices = [...new Set(state.data.trials.map((trial) => trial.device).filter(Boolean))];
  const where = devices.join(", ") || "one device";
  return html(
    "p",
    { class: "hint" },
    `Times are of search and fine-tuning on ${where}; trials may run in parallel.${untimed}`,
  );
}

function timeBars(timed) {
  const longest = Math.max(...timed.map((trial) => trial.seconds));
  const unit = unitOf("seconds", longest);
  const numbers = timed.map((trial) => trial.trial);
  const { chart, across, up, area } = frame(
    widthOf(byId("costs")),
    200,
    { low: Math.min(...numbers) - 0.6, high: Math.max(...numbers) + 0.6, label: "trial", whole: true },
    { low: 0, high: longest * unit.factor * 1.08, label: `time, ${unit.name}` },
    { role: "img", "aria-label": `Time of each trial, ${plural(timed.length, "trial")}; the table of trials has the values` },
  );
  const width = Math.max(1, Math.min(WIDEST_BAR, (across(1) - across(0)) * 0.7));
  for (const trial of timed) {
    const top = up(trial.seconds * unit.factor);
    const kind = trial.trial === state.selected ? "time selected" : "time";
    const x = across(trial.trial) - width / 2;
    chart.append(svg("rect", { class: kind, x, y: top, width, height: area.bottom - top }));
  }
  chart.addEventListener("click", (event) => {
    const pointer = pointerIn(chart, event);
    const distance = (trial) => Math.abs(across(trial.trial) - pointer.x);
    const trial = nearest(timed, distance, Math.max(8, width));
    if (trial) select(trial.trial);
  });
  return chart;
}
