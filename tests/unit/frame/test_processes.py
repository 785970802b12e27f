"""ProcessGroup ends trees of processes completely, however they behave."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.infrastructure.children import StartError, spawn, wait_until
from tests.infrastructure.environment import ROOT, clean_environment
from tests.infrastructure.processes import Process, ProcessGroup, read_procfile

# A parent with a child in its session and one that left it, as a daemon does.
FAMILY = f"""{sys.executable} -c '
import os, signal, sys, time
{{setup}}
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
    print("child", flush=True)
    time.sleep(600)
print("parent", flush=True)
time.sleep(600)
'"""
OBEDIENT = FAMILY.format(setup="")
STUBBORN = FAMILY.format(setup="signal.signal(signal.SIGTERM, signal.SIG_IGN)")


@pytest.fixture
def group(tmp_path: Path) -> ProcessGroup:
    return ProcessGroup(tmp_path, environment={"GREETING": "hello"})


def start(group: ProcessGroup, command: str) -> Process:
    process = group.start_command("family", command)
    group.wait_until(lambda: process.output.count("child") == 2 and "parent" in process.output)
    return process


def test_the_procfile_is_read() -> None:
    assert set(read_procfile()) == {"release", "web", "worker", "beat"}


def test_kill9_ends_everybody(group: ProcessGroup) -> None:
    with group:
        process = start(group, OBEDIENT)
        assert len(process.children()) == 2
        assert process.memory_bytes() > 1_000_000
        process.kill9()
        assert process.exit_code == -signal.SIGKILL
        assert process.tree() == []


def test_stop_of_the_whole_tree(group: ProcessGroup) -> None:
    with group:
        process = start(group, OBEDIENT)
        assert process.stop(5, everyone=True) == -signal.SIGTERM


def test_orphans_are_noticed_and_ended(group: ProcessGroup) -> None:
    process = start(group, OBEDIENT)
    with pytest.raises(AssertionError, match="left behind"), group:
        process._popen.terminate()
        process.wait()
        group.assert_nothing_left(0.1)
    group.kill9()
    group.assert_nothing_left(0)


def test_who_ignores_sigterm_is_told_and_killed(group: ProcessGroup) -> None:
    with group:
        process = start(group, STUBBORN)
        with pytest.raises(TimeoutError, match="end of <family"):
            process.stop(0.2, everyone=True)
        assert process.tree() == []


def test_a_paused_process_goes_on(group: ProcessGroup) -> None:
    with group:
        process = start(group, OBEDIENT)
        process.pause()
        assert {each.status() for each in process.tree()} == {psutil.STATUS_STOPPED}
        process.resume()
        group.wait_until(lambda: psutil.STATUS_STOPPED not in {each.status() for each in process.tree()})
        process.stop(5, everyone=True)


def test_the_environment_is_ours(group: ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "https_proxy", "HTTP_PROXY", "TICK_S"):
        monkeypatch.setenv(name, "inherited")
    with group:
        process = group.start_command("env", "env", environment={"TICK_S": "0.1"})
        assert process.wait() == 0
    lines = process.output.splitlines()
    assert {"GREETING=hello", "TICK_S=0.1", "NO_PROXY=127.0.0.1,localhost"} <= set(lines)
    assert not [line for line in lines if "inherited" in line]


def test_the_checkout_is_seen_without_what_is_the_operators(group: ProcessGroup) -> None:
    assert group.cwd != ROOT
    assert (group.cwd / "Procfile").samefile(ROOT / "Procfile")
    assert not (group.cwd / ".env").exists()
    assert not (group.cwd / "data").exists()


def test_a_failing_condition_shows_the_logs(group: ProcessGroup) -> None:
    with group:
        group.start_command("speaker", "echo said this").wait()
        with pytest.raises(TimeoutError, match=r"(?s)the moon.*said this"):
            group.wait_until(lambda: False, 0.05, what="the moon")


def test_a_failing_release_is_an_error(group: ProcessGroup) -> None:
    with group, pytest.raises(StartError, match="release exited"):
        group._commands["release"] = "sh -c 'echo broken; exit 5'"
        group.run("release")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_servers_die_with_who_started_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from tests.infrastructure.valkey import Valkey\n"
        "server = Valkey(Path(sys.argv[1]) / 'valkey').start(); print(server.pid, flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    starter = spawn(
        [sys.executable, "-c", program, str(tmp_path)], log=log, cwd=ROOT, environment=clean_environment()
    )
    pid = int(wait_until(lambda: log.read_text().strip(), 15))
    assert psutil.pid_exists(pid)
    starter.kill()
    starter.wait()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 5)
