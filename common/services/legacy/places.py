"""Where a legacy result is: in the operator's storage, or only at the provider, whose URLs die."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from common.providers.reading import items, obj
from common.services.legacy.mappings import TaskTable, link
from common.services.legacy.source import Row, Source, parsed, text

_COS = ".myqcloud.com"


@dataclass(frozen=True, slots=True)
class Place:
    """One result's URL, and whether it is in the operator's storage."""

    url: str
    ours: bool
    from_files: bool = False  # known only from `generated_files`


class Places:
    """Tells the operator's storage from the rest of the web."""

    def __init__(self, configs: Iterable[Row]) -> None:
        domains = (text(config.get(name)) for config in configs for name in ("domain", "cdn_url"))
        hosts = (
            urlsplit(domain if "//" in domain else f"//{domain}").hostname for domain in domains if domain
        )
        self._hosts = {host for host in hosts if host}

    def of(self, its: TaskTable, row: Row, uploaded: str | None) -> list[Place]:
        """The row's results, the first one first."""
        first = self._first(its, row, uploaded)
        if first is None:
            return []
        return [first, *(Place(url, self.is_ours(url)) for url in _further(its, row))]

    def _first(self, its: TaskTable, row: Row, uploaded: str | None) -> Place | None:
        cloud, provider = link(row.get(its.cloud)), link(row.get(its.url))
        if cloud:
            return Place(cloud, ours=True)
        if provider and self.is_ours(provider):
            return Place(provider, ours=True)
        if uploaded:
            return Place(uploaded, ours=True, from_files=True)
        return Place(provider, ours=False) if provider else None

    def is_ours(self, url: str) -> bool:
        """Whether the URL is one of the operator's bucket or domain."""
        host = urlsplit(url).hostname or ""
        return (bool(host) and host.endswith(_COS)) or host in self._hosts


def _further(its: TaskTable, row: Row) -> list[str]:
    """All but the first: flux keeps them in the provider's answer alone."""
    images = items(obj(parsed(row.get("flux_response"))).get("images"))
    return [url for image in images[1:] if (url := link(obj(image).get("url")))]


def uploads(session: Session, source: Source, its: TaskTable, ids: list[str]) -> dict[str, str]:
    """What was uploaded for these tasks, also where the task itself never heard of it."""
    rows = source.where(session, "generated_files", "source_task_id", ids,
                        "source_type", "source_task_id", "status", "cloud_url")  # fmt: skip
    return {
        str(row["source_task_id"]): url
        for row in rows
        if row["source_type"] == its.source
        and row["status"] == "uploaded"
        and (url := link(row["cloud_url"]))
    }


def content_type(kind: str, url: str) -> str:
    """As its name promises."""
    ending = urlsplit(url).path.rsplit(".", 1)[-1].lower()
    return _TYPES.get(ending, "video/mp4" if kind == "video" else "image/png")


_TYPES: dict[str, str] = {
    "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif",
    "mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime",
}  # fmt: skip
