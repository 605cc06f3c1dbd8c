// The selected architecture, drawn to scale against its parent.

const MANY_HEADS = 12; // more boxes than this are drawn without gaps

function drawArchitecture() {
  const holder = byId("architecture");
  const trial = selectedTrial();
  const { sizes } = state.data;
  if (!trial?.architecture || !sizes) {
    holder.replaceChildren(html("p", { class: "note" }, withoutArchitecture(trial)));
    return;
  }
  const withHeads = trial.architecture.blocks.some((block) => block.heads !== null);
  const facts = [`Trial ${trial.trial}, ${trial.arch_id}`, ...parentShares(trial)];
  const rows = [...embeddingRows(trial.architecture, sizes), ...blockRows(trial.architecture, sizes)];
  holder.replaceChildren(
    html("p", {}, facts.join("; ") + "."),
    ...[trial.budget_note, trial.warnings].filter((note) => note).map((note) => html("p", { class: "note" }, note)),
    html("p", { class: "hint" }, architectureHint(sizes, withHeads)),
    html(
      "div",
      { class: `blocks${withHeads ? "" : " no-heads"}` },
      html(
        "div",
        { class: "row head", "aria-hidden": "true" },
        html("span", {}, ""),
        html("span", {}, withHeads ? "attention: heads \u00d7 head size" : ""),
        html("span", {}, "MLP"),
      ),
      rows,
    ),
    ...useOf(trial),
  );
}

// What to type to go on with the selected network, from the folder that the study was started in.
function useOf(trial) {
  const { folder } = state.data.study;
  const id = trial.arch_id;
  const commands = [
    `ofbnas evaluate ${shellWord(folder)} --arch ${id}`,
    `ofbnas arch export ${shellWord(folder)} --arch ${id} -o ${id}.onnx`,
  ];
  const code = ["import ofbnas", `model = ofbnas.load_subnet(${JSON.stringify(folder)}, "${id}")`];
  return [
    html("h3", {}, "Use this network"),
    html("pre", { class: "copied", tabindex: "0" }, commands.join("\n")),
    html("p", { class: "hint" }, "In Python, it is a plain timm model:"),
    html("pre", { class: "copied", tabindex: "0" }, code.join("\n")),
  ];
}

// A word for a shell, in quotes if it has characters that a shell would interpret.
function shellWord(word) {
  return /^[\w./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function withoutArchitecture(trial) {
  if (!trial) return "No trial has a row yet.";
  if (trial.status === "failed") return `Trial ${trial.trial} failed: ${trial.reason ?? "no reason is recorded"}`;
  if (trial.status === "pruned") return `Trial ${trial.trial} was ${trial.reason ?? "stopped early"}.`;
  if (trial.status === "running") return `Trial ${trial.trial} is running and has no row yet.`;
  return `Trial ${trial.trial} has no architecture in the table.`;
}

function architectureHint(sizes, withHeads) {
  const outlines = sizes.parent
    ? "Outlines are the parent; the filled part is what the search kept."
    : "No history has the parent's sizes, so outlines are the largest sizes that this study found.";
  return withHeads ? `${outlines} Each box of an attention is a head.` : outlines;
}

// The costs as shares of the parent's, as far as both are known.
function parentShares(trial) {
  const { parent, columns } = state.data;
  const known = ["gmacs", "params"].filter((name) => has(trial, name) && parent[name]);
  return known.map((name) => {
    const share = formatNumber((100 * trial[name]) / parent[name], 3);
    return `${share} % of the parent's ${columns[name].short}`;
  });
}

function embeddingRows(architecture, sizes) {
  const several = architecture.embed.length > 1;
  return architecture.embed.map((width, stage) => {
    const name = sizes.embed_names?.[stage] ?? (several ? `embedding ${stage}` : "embedding");
    const whole = sizes.embed[stage];
    return namedRow(name, html("div", { class: "part both" }, bar(width, whole), sizeNote(width, whole)));
  });
}

function blockRows(architecture, sizes) {
  return architecture.blocks.map((block, index) => {
    const name = sizes.block_names?.[index] ?? `block ${index}`;
    const whole = sizes.blocks[index];
    return namedRow(name, attention(block, whole), mlp(block, whole));
  });
}

function namedRow(name, ...parts) {
  return html("div", { class: "row" }, html("span", { class: "block-name" }, name), parts);
}

function sizeNote(kept, whole) {
  return html("span", { class: "amount" }, `${kept} of ${whole}`);
}

// In place of the size of an attention or an MLP that its block has lost.
function removedNote() {
  return html("span", { class: "amount" }, "removed");
}

function bar(kept, whole) {
  const filling = html("div", { class: "filling", style: { width: `${(100 * kept) / whole}%` } });
  return html("div", { class: "bar", "aria-hidden": "true" }, filling);
}

function mlp(block, parent) {
  if (block.mlp === null) return html("div", { class: "part mlp" });
  if (block.mlp === 0) return html("div", { class: "part mlp removed" }, bar(0, 1), removedNote());
  return html("div", { class: "part mlp" }, bar(block.mlp, parent.mlp), sizeNote(block.mlp, parent.mlp));
}

// A box per head of the parent; a kept head is filled by its share of the parent's head size.
function attention(block, parent) {
  if (block.heads === null) return html("div", { class: "part attention" });
  const heads = [...Array(parent.heads).keys()];
  const boxes = heads.map((head) => bar(head < block.heads ? block.head_size : 0, parent.head_size));
  const removed = block.heads === 0;
  const kept = `${block.heads} \u00d7 ${block.head_size}`;
  const whole = `${parent.heads} \u00d7 ${parent.head_size}`;
  return html(
    "div",
    { class: `part attention${removed ? " removed" : ""}` },
    html("div", { class: `heads${parent.heads > MANY_HEADS ? " many" : ""}`, "aria-hidden": "true" }, boxes),
    removed ? removedNote() : sizeNote(kept, whole),
  );
}
