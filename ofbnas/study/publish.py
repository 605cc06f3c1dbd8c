"""One network of a table as a model on the Hugging Face Hub, which timm loads by its name."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ofbnas.errors import InputError
from ofbnas.files.weights import LOADER, SUBNET_FILES
from ofbnas.models.subnet import save
from ofbnas.study.networks import find_network
from ofbnas.study.saved_subnet import CARD_COLUMNS, card_of
from ofbnas.table.sharing.hub import Hub
from ofbnas.table.sharing.manifest import entry_of
from ofbnas.table.sharing.place import Notify


def publish(source: Path, arch_id: str, target: str, notify: Notify) -> str:
    """Upload one network of a table.

    Its files are written anew, so a network that an older version saved gets all that timm needs.
    What the repository has under their names is replaced; the repository is created if necessary.

    Args:
        source: A study's folder, or a table's file or folder beside its weights.
        arch_id: The architecture's id, or an unambiguous beginning of it.
        target: hf://models/OWNER/NAME[@REVISION].
        notify: Receives lines about the progress.

    Returns:
        timm's name of the model: "hf-hub:OWNER/NAME".

    Raises:
        InputError: There is no such network or place, or the network's row lacks what its card
            says.
        TransferError: Files did not arrive complete.
    """
    hub = Hub(target, "model")  # an invalid target is refused before any work is done
    name = f"hf-hub:{hub.repo}"
    if hub.revision != "main":
        name += f"@{hub.revision}"
    network = find_network(source, arch_id)
    values = network.row.values()
    missing = [column for column in CARD_COLUMNS if values.get(column) is None]
    if missing:
        raise InputError(f"{source}: the row of {arch_id} has no {missing[0]}, which its card says")

    with tempfile.TemporaryDirectory(prefix="ofbnas-model-") as scratch:
        folder = Path(scratch) / "model"
        save(network.subnet, folder, card=card_of(network.subnet, values, name))
        entries = [entry_of(folder / file, file) for file in (*SUBNET_FILES, LOADER)]
        with hub.prepared():
            absent = hub.missing(entries)
            hub.put({entry: folder / entry.path for entry in absent}, notify)
    return name
