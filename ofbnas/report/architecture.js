// The selected architecture, drawn to scale against its parent.

function drawArchitecture() {
  const holder = byId("architecture");
  const trial = selectedTrial();
  const { sizes } = state.data;
  if (!trial?.architecture || !sizes) {
    holder.replaceChildren(html("p", { class: "note" }, withoutArchitecture(trial)));
    return;
  }
  const { embed, blocks } = trial.architecture;
  const against = sizes.parent
    ? "Outlines are the parent; the filled part is what the search kept."
    : "No history tells the parent's sizes, so outlines are the largest sizes that this study found.";
  const { parent } = state.data;
  const shares = ["gmacs", "params"]
    .filter((column) => has(trial, column) && parent[column])
    .map((column) => `${number((100 * trial[column]) / parent[column], 3)} % of the parent's ${COLUMNS[column].short}`);
  const rows = [
    ...embed.map((width, stage) => [
      sizes.embed_names?.[stage] ?? (embed.length > 1 ? `embedding ${stage}` : "embedding"),
      html("div", { class: "part both" }, bar(width, sizes.embed[stage]), said(width, sizes.embed[stage])),
    ]),
    ...blocks.map((block, index) => [
      sizes.block_names?.[index] ?? `block ${index}`,
      attention(block, sizes.blocks[index]),
      html(
        "div",
        { class: "part mlp" },
        block.mlp === null ? null : [bar(block.mlp, sizes.blocks[index].mlp), said(block.mlp, sizes.blocks[index].mlp)],
      ),
    ]),
  ];
  const heads = blocks.some((block) => block.heads !== null);
  holder.replaceChildren(
    html("p", {}, [`Trial ${trial.trial}, ${trial.arch_id}`, ...shares].join("; ") + "."),
    trial.budget_note ? html("p", { class: "note" }, trial.budget_note) : "",
    html("p", { class: "hint" }, against + (heads ? " Each box of an attention is a head." : "")),
    html(
      "div",
      { class: `blocks${heads ? "" : " no-heads"}` },
      html("div", { class: "row head", "aria-hidden": "true" }, html("span", {}, ""), html("span", {}, heads ? "attention: heads \u00d7 head size" : ""), html("span", {}, "MLP")),
      rows.map(([name, ...parts]) => html("div", { class: "row" }, html("span", { class: "block-name" }, name), parts)),
    ),
  );
}

function withoutArchitecture(trial) {
  if (!trial) return "No trial has a row yet.";
  if (trial.status === "failed") return `Trial ${trial.trial} failed: ${trial.reason ?? "no reason is recorded"}`;
  if (trial.status === "pruned") return `Trial ${trial.trial} was ${trial.reason ?? "stopped early"}.`;
  if (trial.status === "begun") return `Trial ${trial.trial} has begun and has no row yet.`;
  return `Trial ${trial.trial} has no architecture in the table.`;
}

function said(kept, whole) {
  return html("span", { class: "said" }, `${kept} of ${whole}`);
}

function bar(kept, whole) {
  const filling = html("div", { class: "filling", style: { width: `${(100 * kept) / whole}%` } });
  return html("div", { class: "bar", "aria-hidden": "true" }, filling);
}

// A box per head of the parent; a kept head is filled by its share of the parent's head size.
function attention(block, parent) {
  if (block.heads === null) return html("div", { class: "part attention" });
  const boxes = [...Array(parent.heads).keys()].map((head) => bar(head < block.heads ? block.head_size : 0, parent.head_size));
  const sizes = `${block.heads} \u00d7 ${block.head_size} of ${parent.heads} \u00d7 ${parent.head_size}`;
  return html(
    "div",
    { class: "part attention" },
    html("div", { class: `heads${parent.heads > 12 ? " many" : ""}`, "aria-hidden": "true" }, boxes),
    html("span", { class: "said" }, sizes),
  );
}
