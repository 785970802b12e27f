"""Files below one folder: never half there, never outside."""

from __future__ import annotations

import errno
import multiprocessing
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from common.errors import StorageUnavailable
from common.settings import Settings
from common.storage import LocalStorage, artifact_key, check_key, new_storage, thumbnail_key, upload_key

KEY = "artifacts/2026/11/24/job_1/1.png"


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "media", "http://127.0.0.1:8000/")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"picture")
    return path


def test_keys() -> None:
    moment = datetime(2026, 11, 25, 1, 30, tzinfo=timezone(timedelta(hours=8)))
    assert artifact_key("job_1", moment, 1, "png") == "artifacts/2026/11/24/job_1/1.png"
    assert thumbnail_key("job_1", moment, 2) == "artifacts/2026/11/24/job_1/2.thumbnail.jpg"
    assert upload_key("upl_1", datetime(2026, 1, 2, tzinfo=UTC), "mp4") == "uploads/2026/01/02/upl_1.mp4"


def test_put_exists_delete(local: LocalStorage, file: Path) -> None:
    assert not local.exists(KEY)
    for _ in range(2):
        local.put(KEY, file, "image/png")
    assert local.exists(KEY)
    assert local.path(KEY).read_bytes() == b"picture"
    assert local.path(KEY).stat().st_mode & 0o777 == 0o644
    assert file.exists()
    for _ in range(2):
        local.delete(KEY)
    assert not local.exists(KEY)


def test_urls(local: LocalStorage) -> None:
    assert local.url(KEY) == f"http://127.0.0.1:8000/media/{KEY}"
    assert local.url("a/b c 中?.png") == "http://127.0.0.1:8000/media/a/b%20c%20%E4%B8%AD%3F.png"
    assert local.read_url(KEY) == local.signed_url(KEY, 60) == local.url(KEY)


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", ".incoming/x", "a/.hidden", "a\\..\\x",
     "a\0b", "a\nb", "x" * 851, "..", "a/.."],
)  # fmt: skip
def test_no_key_leads_outside(local: LocalStorage, file: Path, key: str) -> None:
    for call in (check_key, local.url, local.exists, local.delete, local.path):
        with pytest.raises(ValueError):
            call(key)
    with pytest.raises(ValueError):
        local.put(key, file, "image/png")


def test_symbolic_link_does_not_lead_outside(local: LocalStorage, file: Path, tmp_path: Path) -> None:
    local.put(KEY, file, "image/png")
    (tmp_path / "media" / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError):
        local.path("out/source")


def test_missing_source_is_the_callers_mistake(local: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        local.put(KEY, tmp_path / "missing", "image/png")


def test_failure_leaves_the_old_content_and_no_draft(
    local: LocalStorage, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.put(KEY, file, "image/png")
    file.write_bytes(b"something else")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        local.put(KEY, file, "image/png")
    assert local.path(KEY).read_bytes() == b"picture"
    assert list((tmp_path / "media" / ".incoming").iterdir()) == []


def test_unusable_folder_is_unavailable(tmp_path: Path, file: Path) -> None:
    (tmp_path / "media").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        LocalStorage(tmp_path / "media", "").put(KEY, file, "image/png")


def test_sweep_removes_only_what_is_old(local: LocalStorage, file: Path, tmp_path: Path) -> None:
    local.put(KEY, file, "image/png")
    incoming = tmp_path / "media" / ".incoming"
    (incoming / "old").touch()
    os.utime(incoming / "old", (0, 0))
    (incoming / "new").touch()
    assert local.sweep(86_400.0) == 1
    assert [path.name for path in incoming.iterdir()] == ["new"]
    assert local.exists(KEY)


def _writer(folder: Path, source: Path) -> None:
    local = LocalStorage(folder, "")
    for _ in range(30):
        local.put(KEY, source, "image/png")


def test_readers_never_see_a_part_while_processes_write(tmp_path: Path) -> None:
    sources = []
    for letter in (b"a", b"b", b"c"):
        path = tmp_path / letter.decode()
        path.write_bytes(letter * 300_000)
        sources.append(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_writer, args=(tmp_path / "media", source)) for source in sources]
    for writer in writers:
        writer.start()
    local = LocalStorage(tmp_path / "media", "")
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if local.exists(KEY):
            content = local.path(KEY).read_bytes()
            assert len(content) == 300_000
            assert len(set(content)) == 1
            seen.add(content[0])
    for writer in writers:
        writer.join(10)
        assert writer.exitcode == 0
    assert seen
    assert list((tmp_path / "media" / ".incoming").iterdir()) == []


def test_settings_choose(tmp_path: Path) -> None:
    chosen = new_storage(Settings(_env_file=None, media_dir=tmp_path, public_url="https://pictures.example"))
    assert isinstance(chosen, LocalStorage)
    assert chosen.url("a.png") == "https://pictures.example/media/a.png"


def test_small_objects_are_read_back(local: LocalStorage, file: Path) -> None:
    local.put("a/1.bin", file, "application/octet-stream")
    size = file.stat().st_size
    assert local.read("a/1.bin", size) == file.read_bytes()
    assert local.read("a/2.bin", size) is None
    with pytest.raises(StorageUnavailable, match="more than"):
        local.read("a/1.bin", size - 1)
    with pytest.raises(ValueError):
        local.read("../1.bin", size)
