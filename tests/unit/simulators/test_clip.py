"""The simulated film is a real one."""

from __future__ import annotations

import io

import av

from tests.simulators.clip import CLIP, FRAMES
from tests.simulators.media import mp4


def test_every_frame_decodes_and_differs() -> None:
    for film in (CLIP, mp4("of any length", duration_s=10.0)):
        with av.open(io.BytesIO(film), format="mov") as opened:
            stream = opened.streams.video[0]
            pictures = [bytes(frame.reformat(format="gray").planes[0]) for frame in opened.decode(stream)]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 180)
        assert len(set(pictures)) == len(pictures) == FRAMES
