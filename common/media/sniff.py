"""What kind of media a file is, told by its first bytes. Names and headers are not believed."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES = 64  # what `sniff` wants to see
NOT_MEDIA = "what is there is neither a picture nor a film nor sound"


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file that we store."""

    kind: str  # image | video | audio
    content_type: str
    extension: str


PNG = Format("image", "image/png", "png")
JPEG = Format("image", "image/jpeg", "jpg")
GIF = Format("image", "image/gif", "gif")
WEBP = Format("image", "image/webp", "webp")
MP4 = Format("video", "video/mp4", "mp4")
MOV = Format("video", "video/quicktime", "mov")
WEBM = Format("video", "video/webm", "webm")
MP3 = Format("audio", "audio/mpeg", "mp3")
M4A = Format("audio", "audio/mp4", "m4a")
WAV = Format("audio", "audio/wav", "wav")

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"ID3", MP3),
)
_MP4_BRANDS = frozenset(
    b"isom iso2 iso4 iso5 iso6 iso8 iso9 mp41 mp42 mp71 avc1 hvc1 av01 dash cmfc msdh MSNV".split()
    + b"3gp4 3gp5 3gp6 M4VH M4VP".split()
    + [b"M4V ", b"f4v "]
)


def sniff(head: bytes) -> Format | None:
    """The format of a file that begins with these bytes, or None where it is none of ours."""
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(head[8:12])
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return WEBM if b"webm" in head[:HEAD_BYTES] else None
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return MOV  # QuickTime from before there were brands
    return MP3 if _is_mpeg_frame(head) else None


def _by_brand(head: bytes) -> Format | None:
    if head[8:12] == b"qt  ":
        return MOV
    if head[8:12] in (b"M4A ", b"M4B "):
        return M4A
    size = int.from_bytes(head[:4], "big")
    brands = {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, len(head)) - 3, 4)}
    return MP4 if brands & _MP4_BRANDS else None  # AVIF and HEIC are boxes, too


def _is_mpeg_frame(head: bytes) -> bool:
    """An MPEG audio frame header, layer III: eleven set bits, then no reserved value."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer == 1 and bitrate not in (0, 15) and rate != 3
