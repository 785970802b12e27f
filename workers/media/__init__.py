"""From a provider's output to a file that may be stored: fetch it, look at it, make a thumbnail."""

from common.media import MAX_PIXELS, MediaInfo
from workers.media.download import Limits, StoredFile, fetch
from workers.media.errors import SourceExpired, SourceGone, SourceRefused, SourceTrouble
from workers.media.look import (
    THUMBNAIL_EXTENSION,
    THUMBNAIL_TYPE,
    cut,
    inspect,
    thumbnail,
)

__all__ = [
    "MAX_PIXELS",
    "THUMBNAIL_EXTENSION",
    "THUMBNAIL_TYPE",
    "Limits",
    "MediaInfo",
    "SourceExpired",
    "SourceGone",
    "SourceRefused",
    "SourceTrouble",
    "StoredFile",
    "cut",
    "fetch",
    "inspect",
    "thumbnail",
]
