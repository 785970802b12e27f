"""What a file is, told by its bytes."""

from __future__ import annotations

import hashlib
import io
import struct
import wave
import zlib
from pathlib import Path

import pytest
from PIL import Image

from common.providers.base import Output
from tests.simulators.media import mp4
from workers.media import (
    MediaInfo,
    SourceRefused,
    SourceTrouble,
    StoredFile,
    cut,
    first_frame,
    inspect,
    thumbnail,
)

IMAGE = Output(kind="image")
VIDEO = Output(kind="video", width=1, height=2, duration_s=5.0)


def picture(form: str, size: tuple[int, int] = (640, 360), mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 20).convert(mode).save(out, form, **options)
    return out.getvalue()


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def mvhd(scale: int = 1000, ticks: int = 5042, version: int = 0) -> bytes:
    times = struct.pack(">QQIQ", 0, 0, scale, ticks) if version else struct.pack(">IIII", 0, 0, scale, ticks)
    return box(b"mvhd", bytes([version, 0, 0, 0]), times, b"\0" * 80)


def tkhd(width: int, height: int, turned: bool = False, version: int = 0) -> bytes:
    times = b"\0" * (32 if version else 20)
    matrix = (
        (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30) if turned else (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    )
    size = struct.pack(">II", width << 16, height << 16)
    return box(b"tkhd", bytes([version, 0, 0, 3]), times, b"\0" * 16, struct.pack(">9i", *matrix), size)


def track(head: bytes, handler: bytes = b"vide") -> bytes:
    return box(
        b"trak", head, box(b"mdia", box(b"mdhd", b"\0" * 24), box(b"hdlr", b"\0" * 8, handler, b"\0" * 13))
    )


def film(*moov: bytes, brand: bytes = b"isom", last: bool = True) -> bytes:
    ftyp = box(b"ftyp", brand, b"\0\0\2\0", b"isomiso2avc1mp41" if brand == b"isom" else b"")
    parts = (box(b"mdat", b"\0" * 5000), box(b"moov", *moov))
    return ftyp + b"".join(parts if last else reversed(parts))


SOUND = track(tkhd(0, 0), b"soun")


def look(tmp_path: Path, data: bytes, promised: Output = IMAGE) -> MediaInfo:
    path = tmp_path / "file"
    path.write_bytes(data)
    return inspect(path, promised)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("form", "content_type", "extension", "options"),
    [
        ("PNG", "image/png", "png", {}),
        ("JPEG", "image/jpeg", "jpg", {}),
        (
            "JPEG",
            "image/jpeg",
            "jpg",
            {"progressive": True, "exif": b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 1000},
        ),
        ("GIF", "image/gif", "gif", {}),
        ("WEBP", "image/webp", "webp", {"lossless": True}),
        ("WEBP", "image/webp", "webp", {}),
        ("WEBP", "image/webp", "webp", {"exif": b"Exif\0\0"}),
    ],
)
def test_pictures(
    tmp_path: Path, form: str, content_type: str, extension: str, options: dict[str, object]
) -> None:
    info = look(tmp_path, picture(form, **options))
    assert (info.kind, info.content_type, info.extension) == ("image", content_type, extension)
    assert (info.width, info.height, info.duration_s) == (640, 360, None)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_picture_is_trouble(tmp_path: Path, form: str, share: float) -> None:
    data = picture(form)
    with pytest.raises(SourceTrouble):
        look(tmp_path, data[: int(len(data) * share)])


def png_of(width: int, height: int, packed: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="pixels"):
        look(tmp_path, png_of(60_000, 60_000, zlib.compress(b"\0" * 1_000_000)))


def test_large_picture_is_stored_without_being_decoded(tmp_path: Path) -> None:
    info = look(tmp_path, png_of(12_000, 12_000, zlib.compress(b"\0" * 1_000_000)))
    assert info.width == 12_000
    assert thumbnail(tmp_path / "file", info) is None


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xe0" + b"\xff" * 300_000 + b"\xff\xd9", b"\xff\xd8\xff\xe0\0\0\xff\xd9"]
)
def test_jpeg_that_leads_nowhere_ends(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SourceTrouble):
        look(tmp_path, data)


def test_picture_without_size_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(SourceTrouble):
        look(tmp_path, png_of(0, 10, b""))


# ---------------------------------------------------------------- what is not media


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>",
        b'{"code": 0}',
        b"text",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"MZ\x90\0",
        b"\x7fELF",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\0\0\0\0AVI ",
        b"\x1a\x45\xdf\xa3" + b"\0" * 60,
        box(b"ftyp", b"avif", b"\0\0\0\0", b"avifmif1"),
        box(b"ftyp", b"heic", b"\0\0\0\0", b"mif1heic"),
        b"\xff\xfe<\0h\0t\0m\0l\0",
        b"\xff",
    ],
)
def test_other_than_media_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SourceRefused):
        look(tmp_path, data)


def test_empty_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(SourceTrouble):
        look(tmp_path, b"")


# ---------------------------------------------------------------- films and sound


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_mp4(tmp_path: Path, last: bool, version: int) -> None:
    info = look(
        tmp_path,
        film(mvhd(version=version), SOUND, track(tkhd(1280, 720, version=version)), last=last),
        VIDEO,
    )
    assert (info.kind, info.content_type, info.extension) == ("video", "video/mp4", "mp4")
    assert (info.width, info.height, info.duration_s) == (1280, 720, 5.042)


def test_turned_film(tmp_path: Path) -> None:
    info = look(tmp_path, film(mvhd(), track(tkhd(1280, 720, turned=True))), VIDEO)
    assert (info.width, info.height) == (720, 1280)


def test_mov(tmp_path: Path) -> None:
    info = look(tmp_path, film(mvhd(), track(tkhd(64, 48)), brand=b"qt  "), VIDEO)
    assert (info.content_type, info.width) == ("video/quicktime", 64)
    old = film(mvhd(), track(tkhd(64, 48)))[len(box(b"ftyp", b"isom", b"\0" * 20)) :]
    assert look(tmp_path, old, VIDEO).extension == "mov"


def test_film_in_fragments(tmp_path: Path) -> None:
    mvex = box(b"mvex", box(b"mehd", b"\0" * 4, struct.pack(">I", 7500)))
    assert look(tmp_path, film(mvhd(ticks=0), mvex, track(tkhd(64, 48))), VIDEO).duration_s == 7.5


def test_what_the_film_does_not_say_is_as_promised(tmp_path: Path) -> None:
    info = look(tmp_path, film(mvhd(scale=0), track(tkhd(0, 0))), VIDEO)
    assert (info.width, info.height, info.duration_s) == (1, 2, 5.0)


def test_sound_only_is_audio(tmp_path: Path) -> None:
    info = look(tmp_path, film(mvhd(), SOUND), Output(kind="audio"))
    assert (info.kind, info.content_type, info.width, info.duration_s) == ("audio", "audio/mp4", None, 5.042)


@pytest.mark.parametrize("keep", [40, 3000, -30])
def test_cut_film_is_trouble(tmp_path: Path, keep: int) -> None:
    with pytest.raises(SourceTrouble):
        look(tmp_path, film(mvhd(), track(tkhd(64, 48)))[:keep], VIDEO)


@pytest.mark.parametrize(
    "rubbish",
    [
        box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4s", 4, b"moov"),
        box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4sQ", 1, b"moov", 1 << 62),
        box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I4sQ", 1, b"moov", 0),
        box(b"ftyp", b"isom\0\0\0\0") + box(b"free") * 100_000,
        box(b"ftyp", b"isom\0\0\0\0") + b"\0" * 500,
    ],
)
def test_hostile_boxes_end(tmp_path: Path, rubbish: bytes) -> None:
    with pytest.raises(SourceTrouble):
        look(tmp_path, rubbish, VIDEO)


def test_hostile_boxes_inside_end(tmp_path: Path) -> None:
    info = look(
        tmp_path,
        film(box(b"mvhd"), box(b"trak", struct.pack(">I4s", 1 << 31, b"tkhd")), box(b"trak") * 9000),
        Output(kind="video"),
    )
    assert (info.kind, info.width) == ("video", None)


def test_rubbish_after_the_end_is_forgiven(tmp_path: Path) -> None:
    assert look(tmp_path, film(mvhd(), track(tkhd(64, 48))) + b"\x99" * 100, VIDEO).width == 64


def test_wav(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"\0" * 24_000)
    info = inspect(tmp_path / "a.wav", Output(kind="audio"))
    assert (info.kind, info.content_type, info.duration_s) == ("audio", "audio/wav", 1.5)


@pytest.mark.parametrize("data", [b"ID3\x04" + b"\0" * 50, b"\xff\xfb\x90\x64" + b"\0" * 50])
def test_mp3(tmp_path: Path, data: bytes) -> None:
    info = look(tmp_path, data, Output(kind="audio", duration_s=3.0))
    assert (info.content_type, info.extension, info.duration_s) == ("audio/mpeg", "mp3", 3.0)


def test_webm(tmp_path: Path) -> None:
    data = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08"
    assert look(tmp_path, data + b"\x42\x82\x84webm" + b"\0" * 60, VIDEO).content_type == "video/webm"


# ---------------------------------------------------------------- thumbnails


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "RGB"),
     ("JPEG", "CMYK"), ("JPEG", "L"), ("WEBP", "RGBA"), ("GIF", "P")],
)  # fmt: skip
def test_thumbnail(tmp_path: Path, form: str, mode: str) -> None:
    info = look(tmp_path, picture(form, (1600, 900), mode))
    small = thumbnail(tmp_path / "file", info)
    assert small is not None
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (512, 288))
    assert len(small) < 100_000


def test_small_picture_is_not_blown_up(tmp_path: Path) -> None:
    small = thumbnail(tmp_path / "file", look(tmp_path, picture("PNG", (30, 20))))
    assert small is not None
    assert Image.open(io.BytesIO(small)).size == (30, 20)


def test_transparent_becomes_white(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(out, "PNG")
    small = thumbnail(tmp_path / "file", look(tmp_path, out.getvalue()))
    assert small is not None
    assert Image.open(io.BytesIO(small)).getpixel((5, 5)) == (255, 255, 255)


def test_of_a_film_it_is_the_first_frame(tmp_path: Path) -> None:
    small = thumbnail(tmp_path / "file", look(tmp_path, mp4("a film"), VIDEO))
    assert small is not None
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (320, 180))
        columns = image.convert("L").resize((8, 1)).tobytes()
    assert max(columns) - min(columns) > 50  # it shows the clip's ramp of grey


def test_a_film_that_takes_too_long_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = look(tmp_path, mp4("a film"), VIDEO)
    monkeypatch.setattr(first_frame, "_WAIT_S", 0.001)
    assert thumbnail(tmp_path / "file", info) is None


def test_who_decodes_films_knows_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spy.py").write_text("import os; print(dict(os.environ))")
    monkeypatch.setattr(first_frame, "__file__", str(tmp_path / "spy.py"))
    monkeypatch.setenv("KLING_SECRET_KEY", "of the operator")
    seen = thumbnail(tmp_path / "file", look(tmp_path, mp4("a film"), VIDEO))
    assert seen is not None
    assert b"KLING" not in seen


def test_a_playlist_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(mp4("secret"))
    (tmp_path / "file").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n")
    info = MediaInfo(
        kind="video", content_type="video/mp4", extension="mp4", width=64, height=48, duration_s=1.0
    )
    assert thumbnail(tmp_path / "file", info) is None


def test_no_thumbnail_is_no_error(tmp_path: Path) -> None:
    film_info = look(tmp_path, film(mvhd(), track(tkhd(64, 48))), VIDEO)
    assert thumbnail(tmp_path / "file", film_info) is None
    damaged = look(tmp_path, png_of(100, 100, b"damaged"))
    assert thumbnail(tmp_path / "file", damaged) is None


# ---------------------------------------------------------------- grids

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def grid(form: str, side: int = 64) -> bytes:
    """Four pictures in one, each of another colour."""
    image = Image.new("RGB", (2 * side, 2 * side))
    for number, colour in enumerate(COLOURS):
        image.paste(
            colour, (number % 2 * side, number // 2 * side, (number % 2 + 1) * side, (number // 2 + 1) * side)
        )
    out = io.BytesIO()
    image.save(out, form, **({"quality": 95} if form == "JPEG" else {"lossless": True}))
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_grid_is_cut_into_what_stands_in_it(tmp_path: Path, form: str) -> None:
    for tile, colour in enumerate(COLOURS, 1):
        path = tmp_path / f"{tile}"
        path.write_bytes(grid(form))
        made = cut(StoredFile(path=path, bytes=1, sha256="of the grid"), tile)
        info = inspect(path, Output(kind="image", tile=tile))
        assert (info.width, info.height, info.content_type) == (64, 64, f"image/{form.lower()}")
        content = path.read_bytes()
        assert (made.bytes, made.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        with Image.open(path) as image:
            seen = image.convert("RGB").getpixel((32, 32))
        assert isinstance(seen, tuple)
        assert all(abs(a - b) < 12 for a, b in zip(seen, colour, strict=True))


@pytest.mark.parametrize("content", [b"GIF89a", b"no picture", grid("PNG", side=1), grid("PNG")[:200]])
def test_what_cannot_be_cut_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SourceRefused):
        cut(StoredFile(path=tmp_path / "file", bytes=1, sha256=""), 1)
