"""The benchmarks' own arithmetic, their report, and the two ends of the wire that they bring along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks.harness import BENCHMARKS, Figure, Goal, compared, percentile, side_by_side
from tests.benchmarks.http_server import Request, json_answer, serve
from tests.benchmarks.load import Load


@pytest.mark.parametrize(
    ("value", "reference", "goal", "verdict"),
    [
        (5.0, None, Goal(bound=5), "met"),
        (5.1, None, Goal(bound=5), "missed"),
        (5.0, None, Goal(bound=5, at_least=True), "met"),
        (4.9, None, Goal(bound=5, at_least=True), "missed"),
        (50.0, 100.0, Goal(bound=0.5, at_least=True, of_reference=True), "met"),
        (49.0, 100.0, Goal(bound=0.5, at_least=True, of_reference=True), "missed"),
        (130.0, 100.0, Goal(bound=1.3, of_reference=True), "met"),
        (131.0, 100.0, Goal(bound=1.3, of_reference=True), "missed"),
        (
            1.0,
            0.0,
            Goal(bound=1.3, of_reference=True),
            "missed",
        ),  # a yardstick that did nothing proves nothing
        (1.0, 2.0, None, ""),
    ],
)
def test_a_verdict_is_about_the_figure_or_about_its_ratio(
    value: float, reference: float | None, goal: Goal | None, verdict: str
) -> None:
    assert Figure(what="x", value=value, reference=reference, goal=goal).verdict == verdict


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, part) for part in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0


def test_both_are_measured_in_turns_and_judged_by_their_medians() -> None:
    order: list[str] = []
    ours, theirs = iter([1.0, 90.0, 3.0]), iter([10.0, 20.0, 900.0])

    def measure(name: str, values: Iterator[float]) -> float:
        order.append(name)
        return next(values)

    rounds = side_by_side(3, lambda: measure("a", ours), lambda: measure("b", theirs))
    figure = compared("x", "here", "/s", rounds, reference_name="y")

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert (figure.value, figure.reference, figure.ratio) == (3.0, 20.0, 0.15)


# ---------------------------------------------------------------- the command


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two benchmarks that take no time: one misses its goal, one breaks after its first figure."""

    def slow(_: object) -> Iterator[Figure]:
        yield Figure(what="too slow", value=2, unit="ms", reference=4, reference_name="y", goal=Goal(bound=1))

    def broken(_: object) -> Iterator[Figure]:
        yield Figure(what="so far", value=1)
        raise RuntimeError("no more")

    monkeypatch.setattr(command, "BENCHMARKS", {"slow": slow, "broken": broken})
    monkeypatch.setattr(command, "isolate", lambda: None)  # these tests are isolated already


@pytest.mark.parametrize(
    ("arguments", "code"), [(["slow"], 0), (["slow", "--strict"], 1), (["slow", "broken"], 1)]
)
@pytest.mark.usefixtures("only")
def test_a_missed_goal_fails_only_where_it_is_asked_to_and_a_broken_benchmark_always(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = tmp_path / "bench.json"
    monkeypatch.setattr("sys.argv", ["bench", *arguments, "--json", str(written)])

    assert command.main() == code

    told, table = json.loads(written.read_text()), capsys.readouterr().out
    (slow,) = told["benchmarks"]["slow"]
    assert (slow["value"], slow["ratio"], slow["verdict"]) == (2, 0.5, "missed")
    assert "too slow" in table
    assert "missed" in table
    assert told["machine"]["cores"] >= 1
    assert told["machine"]["packages"]["celery"]
    if "broken" in arguments:
        assert [figure["what"] for figure in told["benchmarks"]["broken"]] == ["so far"]
        assert told["failed"] == {"broken": "RuntimeError: no more"}


def test_a_name_that_nothing_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "acept"])
    with pytest.raises(SystemExit, match="2"):
        command.main()


def test_every_benchmark_of_the_design_is_registered() -> None:
    assert set(BENCHMARKS) >= {"accept", "start", "hop", "throughput", "polling", "storing", "scale"}


# ---------------------------------------------------------------- the wire


def test_the_server_takes_requests_in_pieces_and_several_at_once() -> None:
    whole = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\nhello"
    seen: list[Request] = []

    def handle(request: Request) -> bytes:
        seen.append(request)
        return json_answer(len(seen))

    async def talk() -> list[bytes]:
        server = await serve(handle)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sent = whole + whole
        for start in range(0, len(sent), 7):
            writer.write(sent[start : start + 7])
            await writer.drain()
        bodies = []
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(int(head.rpartition(b": ")[2])))
        writer.close()
        await writer.wait_closed()
        server.close()
        return bodies

    assert asyncio.run(asyncio.wait_for(talk(), 10)) == [b"1", b"2"]
    assert seen == [Request("POST", "/a?b=c", b"hello")] * 2


def test_the_clients_send_what_they_should_and_no_more() -> None:
    bodies: list[str] = []

    def handle(request: Request) -> bytes:
        bodies.append(request.json()["prompt"])
        return json_answer({})

    async def run() -> tuple[float, float, dict[str, int], set[str]]:
        server = await serve(handle, latency_s=0.01)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/jobs"
        load = Load(url=url, tokens=["a", "b", "c"], body='{"prompt": "n #"}', most=20, seconds=10)
        answers = await asyncio.to_thread(load.run)
        server.close()
        return answers.per_s, min(answers.latencies_s), answers.statuses, set(answers.answered_at)

    per_s, shortest_s, statuses, numbers = asyncio.run(asyncio.wait_for(run(), 20))

    assert sorted(bodies) == sorted(f"n {number}" for number in range(20))
    assert numbers == {str(number) for number in range(20)}
    assert statuses == {"200": 20}
    assert shortest_s > 0.009
    assert 0 < per_s < 3 / 0.009
