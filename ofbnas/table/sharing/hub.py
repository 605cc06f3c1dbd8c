"""A repository of the Hugging Face Hub: a dataset with a shared table, or a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote

from ofbnas.errors import InputError, TransferError, one_line
from ofbnas.table.sharing.manifest import Entry
from ofbnas.table.sharing.place import CHUNK, GB, Notify, Readable, file_line

ADDRESS = re.compile(
    r"hf://(?P<kind>dataset|model)s/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<folder>[^@]+))?"
)

# More weights than this are split into several commits, so that less is sent again after a failure.
COMMIT_FILES = 200
COMMIT_SIZE = GB

PATHS_PER_REQUEST = 500
BLOCK = 8 * CHUNK  # bytes of one request


Kind = Literal["dataset", "model"]


class Hub:
    """A repository, or a folder in a dataset's; the token is HF_TOKEN or that of `hf auth login`.

    Attributes:
        address: "hf://datasets/OWNER/NAME", perhaps with @REVISION and /FOLDER, or
            "hf://models/OWNER/NAME", perhaps with @REVISION.
        kind: Which of the two it is.
        repo: "OWNER/NAME".
        revision: A branch, tag or commit.
        folder: A folder of the repository, or None.
    """

    def __init__(self, address: str, kind: Kind = "dataset") -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise InputError(
                f"{address}: huggingface_hub is not installed, but the Hub needs it: "
                "pip install -e '.[hf]' in the checkout of ofbnas"
            ) from None
        self.address = address.rstrip("/")
        self.kind = kind
        parts = ADDRESS.fullmatch(self.address)
        # timm loads a model from the top of its repository only.
        if parts is None or parts["kind"] != kind or (kind == "model" and parts["folder"]):
            places = "@REVISION and /FOLDER" if kind == "dataset" else "@REVISION"
            raise InputError(f"{address}: expected hf://{kind}s/OWNER/NAME, and perhaps {places}")
        self.repo = parts["repo"]
        self.revision = unquote(parts["revision"] or "main")
        self.folder = parts["folder"]
        self._hub: Any = huggingface_hub
        self._api = huggingface_hub.HfApi()
        self._commit: str | None = None

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes.

        All files are those of one commit, the newest when the first file was opened: otherwise a
        push meanwhile would mix two tables.
        """
        with self._translated_errors():
            if self._commit is None:
                self._commit = self._api.dataset_info(self.repo, revision=self.revision).sha
            path_in_repo = self._path_in_repo(path)
            name = f"datasets/{self.repo}@{self._commit}/{path_in_repo}"
            # A cached instance would also have cached which files there are.
            files = self._hub.HfFileSystem(skip_instance_cache=True)
            with files.open(name, "rb", block_size=BLOCK) as stream:
                yield stream

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Create the repository if it does not exist, and translate the errors of the Hub."""
        with self._translated_errors():
            self._api.create_repo(self.repo, repo_type=self.kind, exist_ok=True)
            yield

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """The files that the repository does not have with this hash.

        Small text files are always among them: the Hub has no SHA-256 of these, and compares them
        itself when they are committed.
        """
        from huggingface_hub.hf_api import RepoFile

        entries = list(files)
        known: dict[str, str] = {}
        for start in range(0, len(entries), PATHS_PER_REQUEST):
            part = entries[start : start + PATHS_PER_REQUEST]
            infos = self._api.get_paths_info(
                self.repo,
                [self._path_in_repo(entry.path) for entry in part],
                revision=self.revision,
                repo_type=self.kind,
            )
            for info in infos:
                if isinstance(info, RepoFile) and info.lfs is not None:
                    known[info.path] = info.lfs.sha256

        absent = []
        for entry in entries:
            path = self._path_in_repo(entry.path)
            if known.get(path) != entry.sha256:
                absent.append(entry)
        return absent

    def put(self, files: Mapping[Entry, Path], notify: Notify) -> None:
        """Commit files: weights first, then in one commit the table with its card and manifest."""
        weights = [entry for entry in files if "/" in entry.path]
        table = [entry for entry in files if "/" not in entry.path]
        for entries in [*_groups(weights), table]:
            if entries:
                self._commit_files(entries, files, notify)

    def _commit_files(
        self,
        entries: list[Entry],
        files: Mapping[Entry, Path],
        notify: Notify,
    ) -> None:
        """Upload files in one commit.

        Raises:
            TransferError: The commit failed.
        """
        added = [
            self._hub.CommitOperationAdd(
                path_in_repo=self._path_in_repo(entry.path), path_or_fileobj=files[entry]
            )
            for entry in entries
        ]
        what = "weights" if "/" in entries[0].path else "a table of architectures"
        if self.kind == "model":
            what = "a network"
        try:
            self._api.create_commit(
                self.repo,
                added,
                commit_message=f"Share {what}",
                repo_type=self.kind,
                revision=self.revision,
            )
        # What huggingface_hub raises when an upload fails or a card is refused.
        except (RuntimeError, ValueError) as error:
            cause = error.__cause__ or error
            raise TransferError(f"{self.address}: {one_line(cause)}") from None
        for entry in entries:
            notify(file_line(entry))

    def _path_in_repo(self, path: str) -> str:
        return f"{self.folder}/{path}" if self.folder else path

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate the errors of the Hub's client.

        Raises:
            InputError: The address or the access is at fault.
            FileNotFoundError: The repository has no such file.
            TransferError: The connection or the Hub is at fault.
        """
        from huggingface_hub import errors

        # The HTTP library changes with the version of huggingface_hub; its errors share this base.
        network = cast(type[Exception], errors.HfHubHTTPError.__bases__[0])
        try:
            yield
        except (errors.HFValidationError, errors.RevisionNotFoundError) as error:
            raise InputError(f"{self.address}: {one_line(error)}") from None
        except errors.EntryNotFoundError:
            raise FileNotFoundError(self.address) from None
        except errors.RepositoryNotFoundError:
            raise InputError(
                f"{self.address}: there is no such {self.kind}, or you may not see it; "
                "`hf auth login` or HF_TOKEN logs in"
            ) from None
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise InputError(
                    f"{self.address}: access is refused ({one_line(error)}); "
                    "`hf auth login` or HF_TOKEN logs in"
                ) from None
            raise TransferError(f"{self.address}: {one_line(error)}") from None
        except (network, errors.OfflineModeIsEnabled) as error:
            raise TransferError(f"{self.address}: {one_line(error)}") from None


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Files in groups, each of which makes one commit."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        is_full = len(group) == COMMIT_FILES or size + entry.size > COMMIT_SIZE
        if group and is_full:
            yield group
            group = []
            size = 0
        group.append(entry)
        size += entry.size
    if group:
        yield group
