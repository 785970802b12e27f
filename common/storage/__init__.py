"""Where results are kept for good. Synchronous: a worker calls it in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Protocol

from common.settings import Settings, settings
from common.storage.keys import ROOMS, artifact_key, check_key, day_prefix, thumbnail_key, upload_key
from common.storage.local import LocalStorage
from common.storage.objects import StoredObject

__all__ = [
    "ROOMS",
    "LocalStorage",
    "Storage",
    "StoredObject",
    "artifact_key",
    "check_key",
    "day_prefix",
    "new_storage",
    "pages",
    "storage",
    "thumbnail_key",
    "upload_key",
]


class Storage(Protocol):
    """A flat store of objects by key. Every method may be repeated; StorageUnavailable means: try later."""

    def put(self, key: str, path: Path, content_type: str) -> None:
        """Keep the file's content under the key, atomically; the same key again replaces it.

        Raises StorageRefused where it is this object that is not taken.
        """

    def delete(self, key: str) -> None:
        """Forget the object; a missing one is fine."""

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """The content of a small object, None where there is none; one with more bytes is refused as unavailable."""

    def listing(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so, a page at a time."""

    def sweep(self, older_than_s: float) -> int:
        """Remove what killed processes left half-written longer ago than that; how many there were."""

    def url(self, key: str) -> str:
        """Where users fetch it; never signed, so it may be written down."""

    def signed_url(self, key: str, lives_s: int) -> str:
        """A URL that works for `lives_s` seconds even if the objects are private."""

    def read_url(self, key: str) -> str:
        """What an answer shows now: signed if the operator set COS_SIGNED_URL_S. Never written down."""


_PAGE = 500


def pages(of: Storage, prefixes: Iterable[str]) -> Iterator[list[StoredObject]]:
    """All objects whose keys begin so, in portions that a database can be asked about. Raises StorageUnavailable."""
    for prefix in prefixes:
        listed = of.listing(prefix)
        while page := list(islice(listed, _PAGE)):
            yield page


@cache
def storage() -> Storage:
    """The storage of this process, as the settings say."""
    return new_storage(settings())


def new_storage(config: Settings) -> Storage:
    """A storage made from these settings. Nothing is contacted yet."""
    if config.storage == "local":
        return LocalStorage(config.media_dir, config.public_url)
    from common.storage.cos import (
        Bucket,
        CosStorage,
    )  # slow imports, needless for local storage

    return CosStorage(
        Bucket(
            name=config.cos_bucket,
            region=config.cos_region,
            secret_id=config.cos_secret_id.get_secret_value(),
            secret_key=config.cos_secret_key.get_secret_value(),
            token=config.cos_token.get_secret_value(),
            domain=config.cos_domain,
            scheme=config.cos_scheme,
            public_url=config.cos_public_url,
            signed_url_s=config.cos_signed_url_s,
        )
    )
