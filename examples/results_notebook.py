# %% [markdown]
# # What a study found, cell by cell
#
# Open this file as a notebook in VS Code, PyCharm or, through Jupytext, in Jupyter. It reads the table
# that comes with ofbnas, in a few seconds; put your own study's folder in its place.

# %%
import matplotlib.pyplot as plt
import torch

import ofbnas

STUDY = "studies/tables/digits"
table = ofbnas.read_table(STUDY)
table[["trial", "status", "arch_id", "gmacs", "val_top1", "hp.search.budget.gmacs_share"]]

# %% [markdown]
# ## The Pareto front, selected on validation images, with test accuracy beside it

# %%
front = ofbnas.front(table)
front[["arch_id", "gmacs", "params", "val_top1", "top1"]]

# %% [markdown]
# ## How much of the plane it dominates, up to the parent's cost

# %%
ofbnas.hypervolume(front, ref=(table["parent_gmacs"].max(), 0.0))

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(table["gmacs"] * 1e6, table["val_top1"], "o", color="0.7", label="other trials")
axes.plot(front["gmacs"] * 1e6, front["val_top1"], "o-", label="front")
axes.set(xlabel="kMACs", ylabel="validation top-1, %")
axes.legend()
figure

# %% [markdown]
# ## What a search did: the expected cost as options are removed

# %%
history = ofbnas.read_history(STUDY)
history.pivot_table(index="step", columns="trial", values="expected_cost").ffill().tail()

# %% [markdown]
# ## One network: a plain timm model, for use, for more training, or to be looked at

# %%
smallest = ofbnas.load_subnet(STUDY, front["arch_id"].iloc[0])
ofbnas.axes(smallest, {})

# %%
digits = ofbnas.load_data("digits")
ofbnas.evaluate(smallest, digits.test)

# %%
with torch.inference_mode():
    wrong = (smallest(digits.test.images).argmax(1) != digits.test.labels).nonzero()[:, 0]
figure, panels = plt.subplots(1, 8, figsize=(8, 1.2))
for panel, index in zip(panels, wrong.tolist(), strict=False):
    panel.imshow(digits.test.images[index, 0].numpy(), cmap="gray")
    panel.set_title(f"a {digits.test.labels[index]}")
for panel in panels:
    panel.axis("off")
figure
