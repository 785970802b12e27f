"""All simulated services as a process of their own, until SIGTERM.

`python -m tests.simulators --ports-file FILE` writes into FILE, once everything answers, the settings of a platform
that uses them, as a JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from tests.simulators.pace import Pace
from tests.simulators.world import IMAGE, VIDEO, World

_REMEMBERED = 1_000  # calls that nobody can ask about from outside


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given = _arguments()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    world = World(
        image=given.image,
        video=given.video,
        at_once=given.at_once,
        cos_folder=given.cos_folder,
        remembered=_REMEMBERED,
    )
    with world:
        draft = given.ports_file.with_name(f".{given.ports_file.name}.draft")
        draft.write_text(json.dumps(world.environment(storage=given.storage), indent=2))
        draft.replace(given.ports_file)
        ended.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulators", description=__doc__)
    parser.add_argument("--ports-file", type=Path, required=True, help="where the settings are written")
    parser.add_argument("--storage", choices=("local", "cos"), default="local")
    parser.add_argument("--cos-folder", type=Path, help="keeps the bucket for the next time")
    parser.add_argument(
        "--image", type=_pace, default=IMAGE, metavar="QUEUE,RUN", help="seconds a picture takes"
    )
    parser.add_argument(
        "--video", type=_pace, default=VIDEO, metavar="QUEUE,RUN", help="seconds a film takes"
    )
    parser.add_argument(
        "--at-once", type=int, help="generations under way per account, instead of each service's own"
    )
    return parser.parse_args()


def _pace(text: str) -> Pace:
    queue_s, _, run_s = text.partition(",")
    return Pace(float(queue_s), float(run_s))


if __name__ == "__main__":
    main()
