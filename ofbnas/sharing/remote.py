"""Places of shared tables by their address: folders, https and S3; the Hugging Face Hub has a room of its own."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ofbnas.errors import InputError, TransferError
from ofbnas.sharing.hub import Hub
from ofbnas.sharing.manifest import Entry
from ofbnas.sharing.transfer import CHUNK, Folder, Readable, Source, Target, Tell, told

SECONDS = 60  # that a server may be silent
BLOCK = 8 * CHUNK  # that is asked for at once from S3
SHA256 = "ofbnas-sha256"  # name of an S3 object's own metadata


def source_at(address: str) -> Source:
    """The place to read from that an address names.

    Raises:
        InputError: It names none, or what reads such places is not installed.
    """
    return Web(address) if address.startswith(("https://", "http://")) else _place(address)


def target_at(address: str) -> Target:
    """The place to write to that an address names.

    Raises:
        InputError: It names none, or what writes such places is not installed.
    """
    if address.startswith(("https://", "http://")):
        raise InputError(f"{address}: can only be read; expected a folder, file:///, s3:// or hf:// to push to")
    return _place(address)


def local_path(address: str) -> Path:
    """The path that a file:// address or a plain path names.

    Raises:
        InputError: It names a place that is not here.
    """
    if not address.startswith("file://"):
        if "://" in address:
            raise InputError(f"{address}: expected a folder, file:///..., s3://..., hf://datasets/... or https://...")
        return Path(address)
    parts = urllib.parse.urlsplit(address)
    if parts.netloc not in ("", "localhost") or len(parts.path) < 2:
        raise InputError(f"{address}: expected file:/// and the whole path of a folder on this machine")
    return Path(urllib.request.url2pathname(parts.path))


def _place(address: str) -> Folder | Bucket | Hub:
    if address.startswith("s3://"):
        return Bucket(address)
    if address.startswith("hf://"):
        return Hub(address)
    return Folder(local_path(address))


class Web:
    """A folder on a web server, to read; plain http only on this machine."""

    def __init__(self, address: str) -> None:
        _check_url(address)
        self.address = address.rstrip("/")
        proxies: dict[str, str] | None = (
            {} if address.startswith("http://") else None
        )  # what stays on this machine needs none
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _Redirects())

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes."""
        url = f"{self.address}/{urllib.parse.quote(path)}"
        try:
            with self._opener.open(url, timeout=SECONDS) as stream:
                yield stream
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(url) from None
            if error.code in (401, 403):
                raise InputError(f"{url}: is not public (the server answers {error.code})") from None
            raise TransferError(f"{url}: the server answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise TransferError(f"{url}: {error.reason}") from None
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise TransferError(f"{url}: {error!r}") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed as long as nothing is sent in the open."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if not newurl.startswith("https://") and (req.type == "https" or not _may_read(newurl)):
            raise InputError(f"{req.full_url}: leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(f"{url}: expected https://HOST/FOLDER, the folder that holds manifest.json")
    if not _may_read(url):
        raise InputError(f"{url}: expected https://; plain http is read from this machine only")


def _may_read(url: str) -> bool:
    """Whether an address is https, or on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http":
        return parts.scheme == "https"
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


class Bucket:
    """A prefix in an S3 bucket. Credentials, region and endpoint are those of AWS's own settings."""

    def __init__(self, address: str) -> None:
        try:
            import s3fs
        except ImportError:
            raise InputError(f"{address}: s3fs is not installed, but S3 needs it: pip install 'ofbnas[s3]'") from None
        self.address = address
        self.bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self.prefix = prefix.rstrip("/")
        if not self.bucket:
            raise InputError(f"{address}: expected s3://BUCKET/PREFIX")
        self._files = s3fs.S3FileSystem(use_listings_cache=False)

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes."""
        with self.held():
            try:
                with self._files.open(f"{self.bucket}/{self._key(path)}", "rb", block_size=BLOCK) as stream:
                    yield stream
            except FileNotFoundError:
                self._check_bucket()
                raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """S3's errors in words for users."""
        from botocore.exceptions import BotoCoreError, NoCredentialsError, ParamValidationError

        try:
            yield
        except NoCredentialsError:
            raise InputError(
                f"{self.address}: there are no AWS credentials; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "or a profile"
            ) from None
        except PermissionError as error:
            if error.filename is not None:  # a file here, not an object there
                raise
            raise InputError(f"{self.address}: access is refused ({_line(error)}); check the credentials") from None
        except ParamValidationError:
            raise InputError(f"{self.address}: no bucket can have this name; expected s3://BUCKET/PREFIX") from None
        except BotoCoreError as error:
            raise TransferError(f"{self.address}: {_line(error)}") from None

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """Those of the files that no object with this size and recorded hash is there for.

        Raises:
            InputError: In a file's place there is an object that ofbnas did not write.
        """
        absent = []
        for entry in files:
            key = self._key(entry.path)
            try:
                found = self._files.call_s3("head_object", Bucket=self.bucket, Key=key)
            except FileNotFoundError:
                absent.append(entry)
                continue
            if SHA256 not in found["Metadata"]:
                raise InputError(
                    f"s3://{self.bucket}/{key}: is there already and was not pushed by ofbnas; give another prefix"
                )
            if found["ContentLength"] != entry.size or found["Metadata"][SHA256] != entry.sha256:
                absent.append(entry)
        return absent

    def put(self, files: Mapping[Entry, Path], tell: Tell) -> None:
        """Upload files; an object is only seen when all of it is there."""
        for entry, file in files.items():
            place = f"{self.bucket}/{self._key(entry.path)}"
            try:
                self._files.put_file(str(file), place, Metadata={SHA256: entry.sha256})
            except FileNotFoundError:
                self._check_bucket()
                raise
            tell(told(entry))

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _check_bucket(self) -> None:
        if not self._files.exists(self.bucket):
            raise InputError(f"{self.address}: there is no bucket {self.bucket}, or it is not yours to see") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
