"""A shared table in a dataset repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from ofbnas.errors import InputError, TransferError
from ofbnas.sharing.manifest import Entry
from ofbnas.sharing.transfer import CHUNK, GB, Readable, Tell, told

ADDRESS = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<folder>[^@]+))?")
COMMIT_FILES, COMMIT_SIZE = 200, GB  # more weights than this make several commits, so that less is sent again
ASKED_AT_ONCE = 500
BLOCK = 8 * CHUNK


class Hub:
    """A dataset repository, or a folder in one. The token is that of HF_TOKEN or of `hf auth login`."""

    def __init__(self, address: str) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise InputError(
                f"{address}: huggingface_hub is not installed, but the Hub needs it: pip install 'ofbnas[hf]'"
            ) from None
        self.address = address.rstrip("/")
        if not (parts := ADDRESS.fullmatch(self.address)):
            raise InputError(f"{address}: expected hf://datasets/OWNER/NAME, and perhaps @REVISION and /FOLDER")
        self.repo, self.revision, self.folder = parts["repo"], unquote(parts["revision"] or "main"), parts["folder"]
        self._hub: Any = huggingface_hub
        self._api = huggingface_hub.HfApi()
        self._commit: str | None = None

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes, as they were in the commit that was the newest when the first file was opened."""
        with self._told():
            if self._commit is None:
                self._commit = self._api.dataset_info(self.repo, revision=self.revision).sha
            place = f"datasets/{self.repo}@{self._commit}/{self._place(path)}"
            with self._hub.HfFileSystem(skip_instance_cache=True).open(place, "rb", block_size=BLOCK) as stream:
                yield stream

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the repository if it is not there; the Hub's errors in words for users."""
        with self._told():
            self._api.create_repo(self.repo, repo_type="dataset", exist_ok=True)
            yield

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """Those of the files that are not there with this size and hash, as far as the Hub tells.

        It has no SHA-256 of small text files, which it compares itself.
        """
        from huggingface_hub.hf_api import RepoFile

        entries, known = list(files), dict[str, str]()
        for start in range(0, len(entries), ASKED_AT_ONCE):
            paths = [self._place(entry.path) for entry in entries[start : start + ASKED_AT_ONCE]]
            found = self._api.get_paths_info(self.repo, paths, revision=self.revision, repo_type="dataset")
            known |= {i.path: i.lfs.sha256 for i in found if isinstance(i, RepoFile) and i.lfs is not None}
        return [entry for entry in entries if known.get(self._place(entry.path)) != entry.sha256]

    def put(self, files: Mapping[Entry, Path], tell: Tell) -> None:
        """Commit files: weights first, then in one commit the table with its card and manifest."""
        group, size = list[Entry](), 0
        weights = [entry for entry in files if "/" in entry.path]
        for entry in weights:
            if group and (len(group) == COMMIT_FILES or size + entry.size > COMMIT_SIZE):
                self._commit_files(group, files, tell)
                group, size = [], 0
            group.append(entry)
            size += entry.size
        rest = [entry for entry in files if "/" not in entry.path]
        for last in (group, rest):
            if last:
                self._commit_files(last, files, tell)

    def _commit_files(self, entries: list[Entry], files: Mapping[Entry, Path], tell: Tell) -> None:
        add = self._hub.CommitOperationAdd
        added = [add(path_in_repo=self._place(entry.path), path_or_fileobj=files[entry]) for entry in entries]
        what = "weights" if "/" in entries[0].path else "a table of architectures"
        try:
            self._api.create_commit(
                self.repo, added, commit_message=f"Share {what}", repo_type="dataset", revision=self.revision
            )
        except (RuntimeError, ValueError) as error:  # how huggingface_hub tells of uploads and cards that failed
            raise TransferError(f"{self.address}: {_line(error.__cause__ or error)}") from None
        for entry in entries:
            tell(told(entry))

    def _place(self, path: str) -> str:
        return f"{self.folder}/{path}" if self.folder else path

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The Hub's errors in words for users."""
        from huggingface_hub import errors

        network = cast(type[Exception], errors.HfHubHTTPError.__bases__[0])  # the base of the HTTP library's errors
        try:
            yield
        except (errors.HFValidationError, errors.RevisionNotFoundError) as error:
            raise InputError(f"{self.address}: {_line(error)}") from None
        except errors.EntryNotFoundError:
            raise FileNotFoundError(self.address) from None
        except errors.RepositoryNotFoundError:
            raise InputError(
                f"{self.address}: there is no such dataset, or you may not see it; `hf auth login` or HF_TOKEN logs in"
            ) from None
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise InputError(
                    f"{self.address}: access is refused ({_line(error)}); `hf auth login` or HF_TOKEN logs in"
                ) from None
            raise TransferError(f"{self.address}: {_line(error)}") from None
        except (network, errors.OfflineModeIsEnabled) as error:
            raise TransferError(f"{self.address}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
