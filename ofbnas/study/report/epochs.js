// How the selected trial has learned: accuracy, losses and learning rate over the epochs of search and fine-tuning.

const OF_EPOCHS = {
  val_top1: "Validation accuracy, %",
  val_loss: "Validation loss",
  task: "Training loss",
  reconstruction: "Reconstruction loss",
  lr: "Learning rate",
};
const PHASES = { search: "search", finetune: "fine-tuning" };

function drawEpochs() {
  const trial = selectedTrial();
  const epochs = trial ? state.data.epochs[trial.trial] : undefined;
  const holder = byId("epochs");
  byId("epochs-hint").textContent = epochs ? epochsHint(epochs) : "";
  if (!epochs) {
    holder.replaceChildren();
    return;
  }
  const run = { ...epochs, at: epochsInAll(epochs) };
  const names = Object.keys(OF_EPOCHS).filter((name) => run[name]);
  const width = inColumns(holder);
  holder.replaceChildren(...names.map((name) => epochCurve(run, name, width)));
}

function epochsHint({ phase }) {
  if (!phase.includes("finetune")) return "Curves run over the epochs of the search.";
  if (!phase.includes("search")) return "Curves run over the epochs of the fine-tuning.";
  return "Curves run over the epochs of the search and then, shaded, of the fine-tuning.";
}

// The number of each epoch, counted on from the search to the fine-tuning.
function epochsInAll({ phase, epoch }) {
  const searched = Math.max(0, ...epoch.filter((_, index) => phase[index] === "search"));
  return epoch.map((number, index) => (phase[index] === "search" ? number : number + searched));
}

function epochCurve(run, name, width) {
  const known = [...run.at.keys()].filter((index) => run[name][index] !== null);
  const values = known.map((index) => run[name][index]);
  const parent = name === "val_top1" ? state.data.parent.val_top1 : null;
  const { chart, across, up, area } = frame(
    width,
    CURVE_HEIGHT,
    { low: Math.min(0.5, run.at[0] - 0.5), high: run.at[run.at.length - 1] + 0.5, whole: true },
    extent(isMissing(parent) ? values : [...values, parent], 0.1),
    { role: "img", "aria-label": epochsLabel(run, name, known) },
  );

  if (run.phase.includes("finetune")) chart.prepend(fineTuningBand(run, across, area));
  if (!isMissing(parent)) chart.append(...limit(area, up(parent), "parent"));
  for (const phase of Object.keys(PHASES)) {
    const ofPhase = known.filter((index) => run.phase[index] === phase);
    const path = ofPhase.map((index) => `${across(run.at[index])},${up(run[name][index])}`).join("L");
    if (path) chart.append(svg("path", { class: "curve", d: `M${path}` }));
  }

  const mark = svg("circle", { class: "mark", r: 3.5 });
  const shown = html("b", {});
  const show = (index, prefix) => {
    mark.setAttribute("cx", across(run.at[index]));
    mark.setAttribute("cy", up(run[name][index]));
    shown.textContent = `${prefix}${formatNumber(run[name][index])}`;
  };
  const last = known[known.length - 1];
  show(last, "");
  chart.append(mark);
  chart.addEventListener("pointermove", (event) => {
    const { x } = pointerIn(chart, event);
    const index = nearest(known, (one) => Math.abs(across(run.at[one]) - x), Infinity);
    show(index, `${PHASES[run.phase[index]]} ${run.epoch[index]}: `);
  });
  chart.addEventListener("pointerleave", () => show(last, ""));
  return html("figure", {}, html("figcaption", {}, html("span", {}, OF_EPOCHS[name]), shown), chart);
}

// What shades the epochs of the fine-tuning.
function fineTuningBand(run, across, area) {
  const x = Math.max(area.left, across(run.at[run.phase.indexOf("finetune")] - 0.5));
  return svg("rect", { class: "band", x, y: area.top, width: area.right - x, height: area.bottom - area.top });
}

function epochsLabel(run, name, known) {
  const ends = [known[0], known[known.length - 1]].map(
    (index) => `${formatNumber(run[name][index])} at epoch ${run.epoch[index]} of ${PHASES[run.phase[index]]}`,
  );
  return `${OF_EPOCHS[name]}: ${ends.join(", ")}`;
}
