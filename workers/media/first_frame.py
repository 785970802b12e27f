"""The first frame of a film, as a small JPEG.

What strangers made is decoded by C code, so `of_film` has it done by a process that has little memory, little time
and nothing to lose. That process is this file run as a program: `python first_frame.py PATH FORMAT SIDE`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from threading import BoundedSemaphore

_FORMATS = {"video/mp4": "mov", "video/quicktime": "mov", "video/webm": "matroska"}  # as FFmpeg calls them
_LARGEST_BYTES = 256 * 1024 * 1024  # far beyond the films that models make
_MEMORY_BYTES = 1024 * 1024 * 1024  # of addresses; 4K takes a third of it
_CPU_S, _WAIT_S = 10, 20.0
_AT_ONCE = BoundedSemaphore(2)


def of_film(path: Path, content_type: str, side: int) -> bytes | None:
    """A JPEG of at most `side` pixels a side; None where the film cannot be decoded, or is very large."""
    form = _FORMATS.get(content_type)
    if form is None or path.stat().st_size > _LARGEST_BYTES:
        return None
    command = [sys.executable, "-I", __file__, str(path), form, str(side)]
    try:
        with _AT_ONCE:
            done = subprocess.run(  # without our environment, which holds the operator's keys
                command, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WAIT_S, check=False
            )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


# ---------------------------------------------------------------- the program


def _main(path: str, form: str, side: int) -> None:
    for limit, most in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, _CPU_S)):
        resource.setrlimit(limit, (most, most))
    import av  # nobody else needs its megabytes

    # The format is said, not guessed: FFmpeg would follow a playlist to other files and to the network.
    with av.open(path, format=form, options={"protocol_whitelist": "file"}) as film:
        stream = film.streams.video[0]
        stream.thread_count = 1
        frame = next(film.decode(stream))
        scale = min(1.0, side / max(frame.width, frame.height))
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        frame.to_image(width=size[0], height=size[1]).save(sys.stdout.buffer, "JPEG", quality=82)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
