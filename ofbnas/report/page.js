// What is selected, and when all of it is drawn.

const EVERY = 3000; // milliseconds between two looks at a study that runs

const state = {
  data: JSON.parse(byId("data").textContent),
  selected: null, // a trial's number
  x: "gmacs",
  y: "top1",
  beat: null, // of the history; null is the last
  sort: { key: "trial", down: false },
  filter: "",
};

function has(trial, column) {
  return trial[column] !== undefined && trial[column] !== null;
}

function selectedTrial() {
  return state.data.trials.find((trial) => trial.trial === state.selected);
}

function select(number) {
  if (number !== state.selected) state.beat = null;
  state.selected = number;
  history.replaceState(null, "", `#trial-${number}`);
  draw();
}

// The best of the front, where nothing was chosen.
function defaultTrial() {
  const { trials, fronts } = state.data;
  const asked = Number(/^#trial-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  if (trials.some((trial) => trial.trial === asked)) return asked;
  return fronts[`${state.x}/${state.y}`]?.at(-1) ?? trials[0]?.trial ?? null;
}

function draw() {
  if (!selectedTrial()) state.selected = defaultTrial();
  keepingPlace(() => {
    drawHeader();
    for (const part of [drawFront, drawArchitecture, drawImportance, drawParallel, drawHistory, drawTrials, drawCosts]) part();
  });
}

function drawHeader() {
  const { study, parent, trials } = state.data;
  byId("name").textContent = study.name;
  const known = [
    parent.top1 === null ? null : `${parent.top1.toFixed(2)} % top-1`,
    ...["gmacs", "params"].map((column) => (parent[column] === null ? null : shown(column, parent[column]) + (column === "params" ? " parameters" : ""))),
  ].filter(Boolean);
  const goals = study.objectives.map(({ metric, direction }) => `${direction} ${metric}`).join(", ");
  byId("about").textContent = `${study.model} on ${study.dataset}${known.length ? `; the parent has ${known.join(", ")}` : ""}. Sampler ${study.sampler}: ${goals}.`;
  const over = trials.filter((trial) => trial.status !== "begun").length;
  const endings = ["failed", "pruned"].map((ending) => [ending, trials.filter((trial) => trial.status === ending).length]);
  const told = endings.filter(([, count]) => count).map(([ending, count]) => `, ${count} ${ending}`).join("");
  say(byId("state"), `${over} of ${plural(study.wanted, "trial")} over${told}.`);
  options(byId("front-x"), COSTS.filter((name) => trials.some((trial) => has(trial, name) && trial[name] > 0)), "x");
  options(byId("front-y"), QUALITIES.filter((name) => trials.some((trial) => has(trial, name))), "y");
  const chooser = byId("selected");
  setOptions(chooser, trials.map((trial) => [String(trial.trial), `trial ${trial.trial}${trial.arch_id ? ` \u00b7 ${trial.arch_id}` : ` \u00b7 ${trial.status}`}`]));
  chooser.value = String(state.selected);
  chooser.disabled = !trials.length;
  const trial = selectedTrial();
  const measured = trial ? ["top1", "gmacs", "params"].filter((column) => has(trial, column)) : [];
  byId("selected-facts").textContent = measured.map((column) => `${shown(column, trial[column])}${column === "params" ? " parameters" : ""}`).join(" \u00b7 ");
}

// A choice of columns; one that has lost its values gives way to the first.
function options(chooser, names, axis) {
  setOptions(chooser, names.map((name) => [name, COLUMNS[name].short]));
  if (names.length && !names.includes(state[axis])) state[axis] = names[0];
  chooser.value = state[axis];
  chooser.disabled = names.length < 2;
  chooser.parentElement.hidden = !names.length;
}

function setOptions(chooser, entries) {
  const same = entries.length === chooser.length && entries.every(([value, label], index) => chooser[index].value === value && chooser[index].textContent === label);
  if (!same) chooser.replaceChildren(...entries.map(([value, label]) => html("option", { value }, label)));
}

function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function focusKey(key) {
  document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// Draw, and leave focus and scrolling where they were.
function keepingPlace(drawing) {
  const key = document.activeElement?.dataset?.key;
  const { scrollX, scrollY } = window;
  drawing();
  if (key) focusKey(key);
  window.scrollTo(scrollX, scrollY);
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("data.json");
      const found = await answer.text();
      if (!answer.ok) throw new Error(found.trim());
      if (found !== look.last) {
        look.last = found;
        state.data = JSON.parse(found);
        draw();
      }
      byId("state").classList.remove("stale");
    } catch (error) {
      byId("state").classList.add("stale");
      say(byId("state"), `What is shown may be old. ${error.message}`);
      look.last = null;
    }
  }
  if (!state.data.study.finished) setTimeout(look, EVERY);
}

for (const axis of ["x", "y"]) {
  byId(`front-${axis}`).addEventListener("change", (event) => {
    state[axis] = event.target.value;
    draw();
  });
}
byId("selected").addEventListener("change", (event) => select(Number(event.target.value)));
byId("filter").addEventListener("input", (event) => {
  state.filter = event.target.value;
  drawTrials();
});
byId("beat").addEventListener("input", (event) => {
  state.beat = Number(event.target.value);
  drawHistory();
});
window.addEventListener("hashchange", () => {
  const asked = defaultTrial();
  if (asked !== state.selected) select(asked);
});
let width = byId("main").clientWidth;
draw();
new ResizeObserver(() => {
  const now = byId("main").clientWidth;
  if (now === width) return;
  width = now;
  draw();
}).observe(byId("main"));
if ("live" in document.documentElement.dataset) setTimeout(look, EVERY);
