"""Results that are kept on this machine (STORAGE=local)."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, send_file

from common.errors import NotFound
from common.storage import LocalStorage, storage
from web.endpoints import Access, endpoint

_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".avif": "image/avif", ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime",
    ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".wav": "audio/wav", ".json": "application/json",
}  # fmt: skip
_YEAR_S = 31_536_000
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": f"public, max-age={_YEAR_S}, immutable",
}
blueprint = Blueprint("media", __name__)


@blueprint.get("/media/<path:key>")
@endpoint(access=Access.ANYONE, also=(206, 304), errors=(404, 416))
def file(key: str) -> Response:
    """Fetch a stored result; whoever has its address may."""
    path = _path(key)
    content_type = _TYPES.get(path.suffix.lower(), "application/octet-stream")
    is_shown = content_type.startswith(("image/", "video/", "audio/"))  # anything else is only to be saved
    made = send_file(path, mimetype=content_type, as_attachment=not is_shown, conditional=True, etag=True)
    made.headers.update(_HEADERS)
    return made


def _path(key: str) -> Path:
    """The file behind a key. Raises NotFound for everything that is not a stored object."""
    kept = storage()
    if not isinstance(kept, LocalStorage):
        raise NotFound("Results are kept elsewhere; see an artifact's `url`.")
    try:
        path = kept.path(key)
        found = path.is_file()
    except (ValueError, OSError):  # no key of ours, or longer than a file name may be
        raise NotFound from None
    if not found:
        raise NotFound
    return path
