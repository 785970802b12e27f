"""What a media file really is, told by its bytes: nothing is decoded, and no name or header is believed."""

from common.media.look import MAX_PIXELS, Damaged, MediaInfo, Unusable, inspect
from common.media.sniff import HEAD_BYTES, NOT_MEDIA, sniff

__all__ = [
    "HEAD_BYTES",
    "MAX_PIXELS",
    "NOT_MEDIA",
    "Damaged",
    "MediaInfo",
    "Unusable",
    "inspect",
    "sniff",
]
