"""Objects as files below one folder, which the web process serves at /media/."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from common.clock import epoch
from common.errors import StorageUnavailable
from common.storage.keys import check_key
from common.storage.objects import StoredObject

_INCOMING = ".incoming"  # no key starts with a dot, so half-written files are never served


class LocalStorage:
    """Storage on this machine's disk. Any number of processes may share the folder."""

    def __init__(self, folder: Path, public_url: str) -> None:
        self._folder = folder.absolute()
        self._public_url = public_url.rstrip("/")

    def put(self, key: str, path: Path, content_type: str) -> None:
        """Copy the file; whoever looks sees the old content, the new one or none, never a part of it.

        Raises StorageUnavailable (disk full, read-only …), ValueError for an impossible key, and
        FileNotFoundError where `path` is missing. The extension of the key tells the content type.
        """
        target = self.path(key)
        with path.open("rb") as source, _disk_trouble():
            draft = self._draft()
            try:
                _copy_durably(source.fileno(), draft)
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def delete(self, key: str) -> None:
        """Forget the object; a missing one is fine."""
        with _disk_trouble():
            self.path(key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.path(key).is_file()

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """The content of a small object, None where there is none. Raises StorageUnavailable, also for a larger one."""
        with _disk_trouble():
            try:
                with self.path(key).open("rb") as file:
                    content = file.read(most_bytes + 1)
            except FileNotFoundError:
                return None
        if len(content) > most_bytes:
            raise StorageUnavailable(f"the object has more than {most_bytes} bytes")
        return content

    def url(self, key: str) -> str:
        """Where users fetch it."""
        return f"{self._public_url}/media/{quote(check_key(key))}"

    def signed_url(self, key: str, lives_s: int) -> str:
        """The plain URL: local media are not private."""
        return self.url(key)

    def read_url(self, key: str) -> str:
        """What an answer of the API shows."""
        return self.url(key)

    def path(self, key: str) -> Path:
        """The file of a key. Raises ValueError for a key that would leave the folder or show hidden files."""
        target = self._folder.joinpath(*check_key(key).split("/"))
        if not target.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError("a storage key stays inside the media folder")  # a symbolic link on the way
        return target

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so, in no order. Raises StorageUnavailable."""
        with _disk_trouble():
            for folder, _, names in os.walk(self._folder / prefix.rpartition("/")[0]):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._folder).as_posix()
                    if key.startswith(prefix) and not key.startswith("."):
                        known = path.stat()
                        yield StoredObject(key, known.st_size, known.st_mtime)

    def sweep(self, older_than_s: float) -> int:
        """Remove what killed processes left half-written; the number of files removed."""
        removed = 0
        with _disk_trouble():
            for file in self._incoming().iterdir():
                if file.stat().st_mtime < epoch() - older_than_s:
                    file.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _draft(self) -> Path:
        handle, name = tempfile.mkstemp(dir=self._incoming())
        os.close(handle)
        return Path(name)

    def _incoming(self) -> Path:
        folder = self._folder / _INCOMING  # the same file system as the target, so that the rename is atomic
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _copy_durably(source: int, draft: Path) -> None:
    with os.fdopen(os.dup(source), "rb") as reader, draft.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fchmod(
            writer.fileno(), 0o644
        )  # mkstemp made it private; a web server of another user may serve it
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    """The rename itself survives a power cut only once the folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_trouble() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"the media folder refuses: {error.strerror or type(error).__name__}"
        ) from error
