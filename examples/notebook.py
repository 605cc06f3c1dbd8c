# %% [markdown]
# # A smaller Vision Transformer, cell by cell
#
# Open this file as a notebook in VS Code, PyCharm or, through Jupytext, in Jupyter. It takes about a
# minute on a laptop: a small model learns handwritten digits, and is compressed without training, then
# searched with training.

# %%
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ofbnas
from ofbnas.training.events import Callback

torch.manual_seed(0)
digits = ofbnas.load_data("digits")
digits

# %% [markdown]
# ## The parent: any of timm's Vision Transformers, trained by any loop

# %%
images = TensorDataset(digits.train.images, digits.train.labels)
held_back = TensorDataset(digits.val.images, digits.val.labels)
kwargs = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
kwargs |= {"embed_dim": 32, "depth": 2, "num_heads": 4}
parent = timm.create_model("vit_tiny_patch16_224", **kwargs)
optimizer = torch.optim.AdamW(parent.parameters(), lr=3e-3)
for _ in range(5):
    for batch, labels in DataLoader(images, 64, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(parent(batch), labels).backward()
        optimizer.step()
parent = parent.eval()
ofbnas.evaluate(parent, digits.test)

# %% [markdown]
# ## What can be searched in it

# %%
ofbnas.axes(parent)

# %% [markdown]
# ## To 60 % of the multiply-accumulates, without training

# %%
settings = {"compensation": {"images": 256}, "training_free": {"scoring_images": 256}}
compressed = ofbnas.compress(parent, images, held_back, macs=0.6, settings=settings)
compressed

# %% [markdown]
# ## The same by a search with training, and its progress


# %%
class Progress(Callback):
    """A line for each epoch, which a notebook shows as it comes."""

    def on_epoch(self, phase, epoch, epochs, losses):
        print(f"{phase}: epoch {epoch} of {epochs}, loss {losses['task']:.3f}")


config = ofbnas.SearchConfig(
    epochs=3, lr=3e-3, budget={"gmacs_share": 0.6}, refine={"candidates": 0}
)
found = ofbnas.search(
    parent, digits, config, name="vit_tiny_patch16_224", kwargs=kwargs, callbacks=[Progress()]
)
found

# %% [markdown]
# ## A front of networks that others have found

# %%
table = ofbnas.read_table("studies/tables/digits")
ofbnas.front(table)[["arch_id", "gmacs", "params", "val_top1", "top1"]]
