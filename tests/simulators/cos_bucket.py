"""What lies in a simulated COS bucket: files in a folder, so that large objects need no memory."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import crcmod  # type: ignore[import-untyped]
from crcmod.crcmod import _usingExtension  # type: ignore[import-untyped]

from tests.simulators.cos_signature import Refused

_CHUNK = 1024 * 1024
_crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=0xFFFFFFFFFFFFFFFF, rev=True)
_SLOW_CRC_BYTES = 1024 * 1024  # larger files are not summed where crcmod has no compiled part


@dataclass(frozen=True, slots=True)
class Object:
    """One object. `headers` are the sender's own, with lower-case names; `crc64` is empty where it takes too long."""

    key: str
    size: int
    etag: str  # in its quotes
    crc64: str
    modified_at: float
    headers: Mapping[str, str]


class Draft:
    """A body on its way in: on disk, with its sums. Whoever makes one keeps or discards it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(16)}.draft"
        self.size = 0
        self._file = self.path.open("wb")
        self._md5 = hashlib.md5()
        self._crc = 0

    def write(self, chunk: bytes) -> None:
        """Append."""
        self._file.write(chunk)
        self.size += len(chunk)
        self._md5.update(chunk)
        if _usingExtension or self.size <= _SLOW_CRC_BYTES:
            self._crc = _crc64(chunk, self._crc)

    def finish(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def discard(self) -> None:
        """Forget it; again is fine."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def etag(self) -> str:
        """As of an object that came in one piece."""
        return f'"{self._md5.hexdigest()}"'

    @property
    def crc64(self) -> str:
        return str(self._crc) if _usingExtension or self.size <= _SLOW_CRC_BYTES else ""

    def check_md5(self, promised: str | None) -> None:
        """Compare with a Content-MD5 header. Raises Refused."""
        if promised is None:
            return
        try:
            digest = base64.b64decode(promised, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != 16:
            raise Refused(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
        if digest != self.md5:
            raise Refused(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")


@dataclass(slots=True)
class Upload:
    """An upload in parts that is not completed."""

    id: str
    key: str
    headers: Mapping[str, str]
    made_at: float = field(default_factory=time.time)
    parts: dict[int, Draft] = field(default_factory=dict)


class Bucket:
    """Objects by key and unfinished uploads by id. A given folder keeps its objects for the next time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="wxiai-cos-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        for abandoned in self.folder.glob("*.draft"):
            abandoned.unlink()
        for description in self.folder.glob("*.json"):
            found = Object(**json.loads(description.read_text()))
            self.objects[found.key] = found

    def file(self, key: str) -> Path:
        """Where an object's content lies."""
        return self.folder / hashlib.sha256(key.encode()).hexdigest()

    def draft(self) -> Draft:
        """Room for a body."""
        return Draft(self.folder)

    def keep(self, key: str, draft: Draft, headers: Mapping[str, str], etag: str = "") -> Object:
        """Make a draft the object of that name, in place of another."""
        draft.finish()
        made = Object(key, draft.size, etag or draft.etag, draft.crc64, time.time(), headers)
        draft.path.replace(self.file(key))
        self.file(key).with_suffix(".json").write_text(json.dumps(asdict(made)))
        self.objects[key] = made
        return made

    def remove(self, key: str) -> None:
        """Forget an object; a missing one is fine."""
        if self.objects.pop(key, None):
            self.file(key).unlink(missing_ok=True)
            self.file(key).with_suffix(".json").unlink(missing_ok=True)

    def found(self, key: str) -> Object:
        """Raises Refused where there is none."""
        if key not in self.objects:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return self.objects[key]

    # ------------------------------------------------------------ in parts

    def begin(self, key: str, headers: Mapping[str, str]) -> Upload:
        """A new upload in parts."""
        made = Upload(f"{int(time.time())}{secrets.token_hex(16)}", key, headers)
        self.uploads[made.id] = made
        return made

    def upload(self, key: str, upload_id: str) -> Upload:
        """An unfinished upload. Raises Refused."""
        found = self.uploads.get(upload_id)
        if found is None or found.key != key:
            raise Refused(404, "NoSuchUpload", "The specified multipart upload does not exist.")
        return found

    def add_part(self, upload: Upload, number: int, draft: Draft) -> None:
        """Keep a part, in place of another with its number. Raises Refused where the upload ended meanwhile."""
        draft.finish()
        if upload.id not in self.uploads:
            draft.discard()
            self.upload(upload.key, upload.id)
        replaced = upload.parts.pop(number, None)
        if replaced is not None:
            replaced.discard()
        upload.parts[number] = draft

    def complete(self, upload: Upload, wanted: list[tuple[int, str]]) -> Object:
        """Join the wanted parts, numbers with their ETags. Slow for large ones. Raises Refused."""
        if [number for number, _ in wanted] != sorted({number for number, _ in wanted}) or not wanted:
            raise Refused(400, "InvalidPartOrder", "The parts are not in ascending order.")
        if any(number not in upload.parts or upload.parts[number].etag != etag for number, etag in wanted):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        parts = [upload.parts[number] for number, _ in wanted]
        if any(part.size < _CHUNK for part in parts[:-1]):
            raise Refused(400, "EntityTooSmall", "A part is smaller than the minimum allowed size.")
        whole = self._joined(parts)
        digest = hashlib.md5(b"".join(part.md5 for part in parts)).hexdigest()
        self.abort(upload)
        return self.keep(upload.key, whole, upload.headers, f'"{digest}-{len(parts)}"')

    def _joined(self, parts: list[Draft]) -> Draft:
        whole = self.draft()
        for part in parts:
            with part.path.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    whole.write(chunk)
        return whole

    def abort(self, upload: Upload) -> None:
        """Forget an upload and its parts."""
        self.uploads.pop(upload.id, None)
        for part in upload.parts.values():
            part.discard()
