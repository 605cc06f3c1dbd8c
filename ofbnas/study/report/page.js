// What is selected, and when the page is drawn.

const POLL_EVERY = 3000; // milliseconds between two requests for the data of a running study

const state = {
  data: JSON.parse(byId("data").textContent),
  selected: null, // a trial's number
  x: "gmacs",
  y: "val_top1",
  decision: null, // index into the history; null is the last
  objective: null, // what the optimization history shows, by default the first
  over: "trial", // or a swept hyper-parameter
  sort: { key: "trial", down: false },
  filter: "",
};

function has(trial, column) {
  return !isMissing(trial[column]);
}

function selectedTrial() {
  return state.data.trials.find((trial) => trial.trial === state.selected);
}

function select(trial) {
  if (trial !== state.selected) state.decision = null;
  state.selected = trial;
  history.replaceState(null, "", `#trial-${trial}`);
  draw();
}

// The trial that the address names, else the best of the front.
function defaultTrial() {
  const { trials, fronts } = state.data;
  const requested = Number(/^#trial-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  if (trials.some((trial) => trial.trial === requested)) return requested;
  return fronts[`${state.x}/${state.y}`]?.at(-1) ?? trials[0]?.trial ?? null;
}

function draw() {
  if (!selectedTrial()) state.selected = defaultTrial();
  keepingFocus(() => {
    drawHeader();
    drawChoices();
    drawFront();
    drawArchitecture();
    drawObjectives();
    drawParallel();
    drawImportance();
    byId("settings").textContent = state.data.settings;
    byId("settings").closest("section").hidden = state.data.settings === null;
    drawHistory();
    drawTrials();
    drawCosts();
  });
}

function drawHeader() {
  const { study, left_out: leftOut } = state.data;
  byId("name").textContent = study.name;
  byId("about").textContent = about();
  byId("left-out").textContent = leftOut ?? "";
  byId("left-out").hidden = leftOut === null;
  announce(byId("state"), progress());
}

function about() {
  const { study, parent } = state.data;
  const facts = ["top1", "gmacs", "params"].filter((column) => parent[column] !== null).map((column) => fact(parent, column));
  const ofParent = facts.length ? `; the parent has ${facts.join(", ")}` : "";
  const goals = study.objectives.map(({ metric, direction }) => `${direction} ${metric}`).join(", ");
  const swept = study.sampler ? ` Sampler ${study.sampler}: ${goals}.` : "";
  return `${study.model} on ${study.dataset}${ofParent}.${swept}`;
}

// A value with its name, unless its unit already says what it is.
function fact(values, column) {
  if (column === "top1") return `${values.top1.toFixed(2)} % top-1`;
  const value = formatValue(column, values[column]);
  return column === "params" ? `${value} parameters` : value;
}

function progress() {
  const { study, trials } = state.data;
  const finished = trials.filter((trial) => trial.status !== "running").length;
  const parts = [`${finished} of ${plural(study.wanted, "trial")} finished`];
  for (const status of ["failed", "pruned"]) {
    const count = trials.filter((trial) => trial.status === status).length;
    if (count) parts.push(`${count} ${status}`);
  }
  return `${parts.join(", ")}.`;
}

function drawChoices() {
  const { trials } = state.data;
  const costs = withRole("cost").filter((name) => trials.some((trial) => has(trial, name) && trial[name] > 0));
  const qualities = withRole("quality").filter((name) => trials.some((trial) => has(trial, name)));
  drawColumnChoice(byId("front-x"), costs, "x");
  drawColumnChoice(byId("front-y"), qualities, "y");

  const chooser = byId("selected");
  setOptions(chooser, trials.map((trial) => [String(trial.trial), `trial ${trial.trial} \u00b7 ${trial.arch_id ?? trial.status}`]));
  chooser.value = String(state.selected);
  chooser.disabled = !trials.length;

  const trial = selectedTrial();
  const measured = trial ? ["top1", "gmacs", "params"].filter((column) => has(trial, column)) : [];
  const facts = measured.map((column) => (column === "top1" ? formatValue(column, trial.top1) : fact(trial, column)));
  byId("copy-id").hidden = !trial?.arch_id;
  byId("selected-facts").textContent = facts.join(" \u00b7 ");
}

function drawColumnChoice(chooser, names, axis) {
  drawChoice(chooser, names.map((name) => [name, state.data.columns[name].short]), axis);
}

// A choice for a part of the state, of values and labels; if the chosen one is no longer offered, the first is chosen.
function drawChoice(chooser, entries, part) {
  setOptions(chooser, entries);
  const values = entries.map(([value]) => value);
  if (values.length && !values.includes(state[part])) state[part] = values[0];
  chooser.value = state[part];
  chooser.disabled = values.length < 2;
  chooser.parentElement.hidden = !values.length;
}

// Options that have not changed are left alone: replacing them would close an open list.
function setOptions(chooser, entries) {
  const isSame = ([value, label], index) => chooser[index].value === value && chooser[index].textContent === label;
  if (entries.length === chooser.length && entries.every(isSame)) return;
  chooser.replaceChildren(...entries.map(([value, label]) => html("option", { value }, label)));
}

// A screen reader reads a status again whenever it is set, so it is set only when it changes.
function announce(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function focusKey(key) {
  document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// Draw, and restore focus and scrolling, since elements are replaced by new ones.
function keepingFocus(drawing) {
  const key = document.activeElement?.dataset?.key;
  const { scrollX, scrollY } = window;
  drawing();
  if (key) focusKey(key);
  window.scrollTo(scrollX, scrollY);
}

// Ask the server for new contents until the study is finished.
async function poll() {
  if (!document.hidden) {
    try {
      await update();
      byId("state").classList.remove("stale");
    } catch (error) {
      byId("state").classList.add("stale");
      announce(byId("state"), `What is shown may be out of date. ${error.message}`);
      update.last = null;
    }
  }
  if (!state.data.study.finished) setTimeout(poll, POLL_EVERY);
}

async function update() {
  const response = await fetch("data.json");
  const body = await response.text();
  if (!response.ok) throw new Error(body.trim());
  if (body === update.last) return;
  update.last = body;
  state.data = JSON.parse(body);
  draw();
}

for (const axis of ["x", "y"]) {
  byId(`front-${axis}`).addEventListener("change", (event) => {
    state[axis] = event.target.value;
    draw();
  });
}
for (const part of ["objective", "over"]) {
  byId(part).addEventListener("change", (event) => {
    state[part] = event.target.value;
    drawObjectives();
  });
}
byId("copy-id").addEventListener("click", (event) => copyText(event.currentTarget, selectedTrial().arch_id));
byId("download").addEventListener("click", () => download(`${state.data.study.name}.csv`, csvOf(shownTrials)));
byId("selected").addEventListener("change", (event) => select(Number(event.target.value)));
byId("filter").addEventListener("input", (event) => {
  state.filter = event.target.value;
  drawTrials();
});
byId("decision").addEventListener("input", (event) => {
  state.decision = Number(event.target.value);
  drawHistory();
});
window.addEventListener("hashchange", () => {
  const requested = defaultTrial();
  if (requested !== state.selected) select(requested);
});

let drawnWidth = byId("main").clientWidth;
draw();
new ResizeObserver(() => {
  const width = byId("main").clientWidth;
  if (width === drawnWidth) return;
  drawnWidth = width;
  draw();
}).observe(byId("main"));
if ("live" in document.documentElement.dataset) setTimeout(poll, POLL_EVERY);
