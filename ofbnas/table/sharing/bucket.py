"""A shared table in an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ofbnas.errors import InputError, TransferError, one_line
from ofbnas.table.sharing.manifest import Entry
from ofbnas.table.sharing.place import CHUNK, Notify, Readable, file_line

BLOCK = 8 * CHUNK  # bytes of one request
SHA256 = "ofbnas-sha256"  # name of an S3 object's own metadata


class Bucket:
    """A prefix in an S3 bucket; credentials, region and endpoint come from AWS's own settings."""

    def __init__(self, address: str) -> None:
        try:
            import s3fs
        except ImportError:
            raise InputError(
                f"{address}: s3fs is not installed, but S3 needs it: "
                "pip install -e '.[s3]' in the checkout of ofbnas"
            ) from None
        self.address = address
        parts = address.removeprefix("s3://").partition("/")
        self.bucket = parts[0]
        self.prefix = parts[2].rstrip("/")
        if not self.bucket:
            raise InputError(f"{address}: expected s3://BUCKET/PREFIX")
        # Without the cache of listings: other machines may push at the same time.
        self._files = s3fs.S3FileSystem(use_listings_cache=False)

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes.

        Raises:
            FileNotFoundError: The bucket has no such object.
            InputError: The bucket does not exist, or access is refused.
        """
        name = f"{self.bucket}/{self._key(path)}"
        with self.prepared():
            try:
                with self._files.open(name, "rb", block_size=BLOCK) as stream:
                    yield stream
            except FileNotFoundError:
                self._check_bucket()
                raise

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Translate the errors of S3's client; nothing has to be prepared."""
        from botocore.exceptions import BotoCoreError, NoCredentialsError, ParamValidationError

        try:
            yield
        except NoCredentialsError:
            raise InputError(
                f"{self.address}: there are no AWS credentials; expected AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or a profile"
            ) from None
        except PermissionError as error:
            if error.filename is not None:  # a local file's error, not S3's
                raise
            raise InputError(
                f"{self.address}: access is refused ({one_line(error)}); check the credentials"
            ) from None
        except ParamValidationError:
            raise InputError(
                f"{self.address}: no bucket can have this name; expected s3://BUCKET/PREFIX"
            ) from None
        except BotoCoreError as error:
            raise TransferError(f"{self.address}: {one_line(error)}") from None

    def missing(self, files: Iterable[Entry]) -> list[Entry]:
        """The files for which the bucket has no object with this size and recorded hash.

        Raises:
            InputError: An object that ofbnas did not write has a file's key.
        """
        absent = []
        for entry in files:
            key = self._key(entry.path)
            try:
                head = self._files.call_s3("head_object", Bucket=self.bucket, Key=key)
            except FileNotFoundError:
                absent.append(entry)
                continue
            if SHA256 not in head["Metadata"]:
                raise InputError(
                    f"s3://{self.bucket}/{key}: is there already and was not pushed by ofbnas; "
                    "give another prefix"
                )
            same_size = head["ContentLength"] == entry.size
            same_hash = head["Metadata"][SHA256] == entry.sha256
            if not (same_size and same_hash):
                absent.append(entry)
        return absent

    def put(self, files: Mapping[Entry, Path], notify: Notify) -> None:
        """Upload files; an object becomes visible only once it is complete."""
        for entry, file in files.items():
            name = f"{self.bucket}/{self._key(entry.path)}"
            try:
                self._files.put_file(str(file), name, Metadata={SHA256: entry.sha256})
            except FileNotFoundError:
                self._check_bucket()
                raise
            notify(file_line(entry))

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def _check_bucket(self) -> None:
        """Tell a bucket that is missing from an object that is missing.

        Raises:
            InputError: The bucket is missing, or cannot be seen.
        """
        if not self._files.exists(self.bucket):
            raise InputError(
                f"{self.address}: there is no bucket {self.bucket}, or you may not see it"
            ) from None
