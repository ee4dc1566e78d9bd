"""The task `shell`, each row of its table, with real commands."""

from __future__ import annotations

import contextvars
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Cancelled, Client, Context, Job
from jobvisor.builtin.shell import CommandFailed, shell
from jobvisor.jobs.builtin.fence import take_fence
from jobvisor.jobs.builtin.output import shown_text
from jobvisor.jobs.headers import NONE
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.running import Place, running
from tests.clock import MovableClock
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
STUBBORN = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"  # of a shell, not of ours


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """One attempt of a command, in a folder of its own."""
    with Client("memory://") as client:

        def once(*args: Any, using: dict[str, Any] | None = None, **kwargs: Any) -> Job:
            kwargs.setdefault("cwd", str(tmp_path))
            client.enqueue(shell.using(**({"retries": 0} | (using or {}))).call(*args, **kwargs))
            ended = client.run_one()
            assert ended is not None
            return ended

        yield once


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _pids(folder: Path, count: int = 1, name: str = "pid") -> list[int]:
    path = folder / name

    def written() -> list[int]:
        found = path.read_text().split() if path.exists() else []
        return [int(each) for each in found] if len(found) >= count else []

    return eventually(written, what=f"{count} numbers in {path}")


def test_a_command_that_succeeds_is_told_with_the_ends_of_its_output(
    run: Callable[..., Job],
) -> None:
    job = run("echo out; echo err >&2", shell=True)
    assert job.state == "succeeded"
    assert job.result is not None
    assert (job.result["exit_code"], job.result["stdout"], job.result["stderr"]) == (
        0,
        "out\n",
        "err\n",
    )
    assert job.result["seconds"] > 0


def test_an_unexpected_exit_code_is_retried_and_told_with_the_end_of_the_output(
    run: Callable[..., Job],
) -> None:
    job = run("echo reason >&2; exit 3", shell=True, using={"retries": 1, "retry": "1h"})
    assert (job.state, job.deferred) == ("scheduled", "retry")
    assert "CommandFailed: exit code 3\nstderr: reason" in str(job.error)


def test_an_expected_exit_code_succeeds_and_a_permanent_one_fails_for_good(
    run: Callable[..., Job],
) -> None:
    assert run("exit 3", shell=True, expect=[0, 3]).result["exit_code"] == 3
    assert run("exit 3", shell=True, permanent=[3], using={"retries": 5}).state == "failed"
    assert run("kill -9 $$", shell=True, expect=[-9]).result["exit_code"] == -9


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "exit code 127: there is no program 'no-such-program'"),
        (["./plain"], "exit code 126: './plain' may not be executed"),
        (["./text"], "exit code 126: './text' is no program"),
        (
            ["./orphan"],
            "exit code 127: there is no program './orphan', or none that the first line",
        ),
        (["sh", "-c", "no-such-program"], "exit code 127 (shells say so of a program that is not"),
        (["sh", "-c", "./plain"], "exit code 126 (shells say so of what cannot be executed)"),
        (["sh", "-c", "kill -SEGV $$"], "ended by SIGSEGV"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], "exit code 137 (as of SIGKILL)"),
    ],
)
def test_what_kept_a_command_from_its_end_is_told_in_words(
    run: Callable[..., Job], tmp_path: Path, command: list[str], words: str
) -> None:
    for name, mode, text in (
        ("plain", 0o644, "x"),
        ("text", 0o755, "x"),
        ("orphan", 0o755, "#!/no/such/interpreter\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    job = run(command)
    assert job.state == "failed"
    assert words in str(job.error)


def test_a_folder_that_is_not_there_is_told(run: Callable[..., Job], tmp_path: Path) -> None:
    error = str(run(["true"], cwd=str(tmp_path / "gone")).error)
    assert "exit code 127: its folder cannot be entered" in error
    assert "gone" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("echo x",), "write a list of the program and its arguments, or shell=True"),
        (([],), "command=[] must be the name of a program"),
        ((["echo", 3],), "command[1]=3 must be a text"),
        ((["echo"], {"shell": True}), "command=['echo'] must be a text"),
        ((["echo"], {"env": {"A=B": "x"}}), "env='A=B' must be names of variables"),
        ((["echo"], {"env": {"A": 3}}), "env.A=3 must be a text"),
        ((["echo"], {"limits": {"disk": 1}}), "limits.disk is no limit"),
        ((["echo"], {"limits": {"memory": "much"}}), "limits.memory: 'much' is not a size"),
        ((["echo"], {"limits": {"files": 1}}), "limits.files=1 must be a whole number from 3"),
        ((["echo"], {"timeout": "soon"}), "timeout: 'soon' is not a duration"),
        ((["echo"], {"expect": 0}), "expect=0 must be a list of exit codes"),
        ((["echo"], {"permanent": [300]}), "permanent=300 must be a whole number"),
        ((["echo"], {"keep": 1 << 30}), "keep=1073741824 must be a whole number"),
        ((["echo"], {"stdin": 3}), "stdin=3 must be a text"),
    ],
)
def test_arguments_that_no_command_can_have_fail_the_job_at_once(
    arguments: tuple[Any, ...],
    words: str,
) -> None:
    args, kwargs = arguments[:1], dict(arguments[1]) if len(arguments) > 1 else {}
    with Client("memory://") as client:
        client.enqueue("shell", *args, **kwargs)
        job = client.run_one()
    assert job is not None
    assert (job.state, job.attempt) == ("failed", 1)
    assert words in str(job.error)


def test_the_environment_is_the_workers_without_our_passwords(
    run: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBVISOR_EMAIL_PASSWORD", "hush")
    monkeypatch.setenv("JOBVISOR_WEB_TOKEN", "hush")
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("TAKEN", "taken")
    job = run(["env"], env={"MINE": "mine", "TAKEN": None}, using={"retries": 2})
    told = dict(line.split("=", 1) for line in job.result["stdout"].splitlines() if "=" in line)
    assert (told["KEPT"], told["MINE"]) == ("kept", "mine")
    assert (told["JOB_ID"], told["JOB_ATTEMPT"]) == (str(job.id), "1")
    assert "TAKEN" not in told
    assert "hush" not in job.result["stdout"]


def test_stdin_is_the_text_or_nothing(run: Callable[..., Job]) -> None:
    assert run(["cat"], stdin="ä" * 300_000).result["stdout_bytes"] == 600_000
    assert run(["cat"]).result["stdout"] == ""


def test_a_flood_of_output_is_read_and_only_its_end_kept(run: Callable[..., Job]) -> None:
    job = run(["sh", "-c", "yes ä | head -c 3000000; echo the end"], keep=100)
    assert job.result["stdout_bytes"] == 3_000_008
    assert job.result["stdout"].endswith("ä\nthe end\n")
    assert len(job.result["stdout"].encode()) <= 100


def test_bytes_that_are_no_text_are_shown(run: Callable[..., Job]) -> None:
    job = run(["printf", r"a\377b\000c\033[0m\tend\r\n"])
    assert job.result["stdout"] == "a\\xffb\\x00c\\x1b[0m\tend\r\n"
    assert (
        shown_text(bytes(range(256))).isprintable() is False
    )  # tab and the ends of lines are left


def test_the_largest_output_that_is_kept_fits_a_result(run: Callable[..., Job]) -> None:
    flood = "head -c 70000 /dev/zero; head -c 70000 /dev/zero >&2"
    job = run(flood, shell=True, keep=65_536)
    assert job.state == "succeeded"
    assert len(json.dumps(job.result)) > 500_000


def test_what_it_writes_goes_where_prints_go(
    run: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    run("printf 'to out'; printf 'to err' >&2", shell=True)
    told = capsys.readouterr()
    assert told.out == "to out"
    assert "to err" in told.err


def until_it_began(folder: Path, attempt: Callable[[int], Any]) -> Any:
    """The first attempt whose command had begun before its time was over: a later one on a slow machine."""
    for seconds in (1, 5, 25, 60):
        ended = attempt(seconds)
        if (folder / "pid").exists():
            return ended
    raise AssertionError("the command has not begun within a minute")


def test_a_timeout_asks_it_to_end(run: Callable[..., Job], tmp_path: Path) -> None:
    trapped = "trap 'echo cleaned; exit 7' TERM; echo $$ > pid; while :; do sleep 0.05; done"
    job = until_it_began(
        tmp_path, lambda seconds: run(trapped, shell=True, timeout=seconds, grace="1h")
    )
    assert "ended because its timeout of" in str(job.error)
    assert "stdout: cleaned" in str(job.error)
    assert _is_gone(_pids(tmp_path)[0])


def test_a_command_that_does_not_heed_its_timeout_is_killed_after_its_grace(
    run: Callable[..., Job], tmp_path: Path
) -> None:
    job = until_it_began(
        tmp_path, lambda seconds: run(STUBBORN, shell=True, timeout=seconds, grace="100ms")
    )
    assert "ended because its timeout of" in str(job.error)
    assert _is_gone(_pids(tmp_path)[0])


def test_it_is_killed_before_the_timeout_of_its_job_would_end_the_worker(tmp_path: Path) -> None:
    def attempt(seconds: int) -> None:
        with pytest.raises(CommandFailed, match="the timeout of the job is over"):
            shell(
                Context.for_test(timeout=seconds),
                STUBBORN,
                shell=True,
                cwd=str(tmp_path),
                grace="1h",
            )

    until_it_began(tmp_path, attempt)
    assert _is_gone(_pids(tmp_path)[0])


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_cancelled_command_is_asked_and_then_killed(tmp_path: Path, stubborn: bool) -> None:
    ctx = Context.for_test()
    raised: list[BaseException] = []

    def call() -> None:
        try:
            text = STUBBORN if stubborn else "echo $$ > pid; sleep 600"
            shell(ctx, text, shell=True, cwd=str(tmp_path), grace="100ms" if stubborn else "1h")
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    [pid] = _pids(tmp_path)
    ctx.ask_to_cancel()
    thread.join()
    assert str(raised[0]) == f"asked to end; ended by {'SIGKILL' if stubborn else 'SIGTERM'}"
    assert _is_gone(pid)


ESCAPING = """
sleep 601 & echo $! >> pid
(setsid sh -c 'echo $$ >> pid; trap "" TERM HUP; sleep 602' &)
setsid -f sh -c 'echo $$ >> pid; sleep 603'
(set -m; sleep 604 & echo $! >> pid)
while [ $(wc -l < pid) -lt 4 ]; do sleep 0.01; done
"""


def test_nothing_that_a_command_has_started_outlives_it(
    run: Callable[..., Job], tmp_path: Path
) -> None:
    assert run(ESCAPING, shell=True).state == "succeeded"
    assert [pid for pid in _pids(tmp_path, 4) if not _is_gone(pid)] == []


def test_limits_are_those_of_the_command(run: Callable[..., Job]) -> None:
    limits = {"files": 50, "memory": "1GB", "cpu": "3s"}
    job = run("ulimit -n; ulimit -v; ulimit -t", shell=True, limits=limits)
    assert job.result["stdout"].split() == ["50", "1048576", "3"]


def test_all_processes_together_keep_to_the_memory_of_the_job(run: Callable[..., Job]) -> None:
    both = "import os; os.fork(); x = b'1' * (60 << 20); import signal; signal.pause()"
    job = run([sys.executable, "-c", both], using={"memory": "100MB"})
    assert "killed: its processes held 1" in str(job.error)


def test_a_keeper_that_is_killed_takes_its_command_along(tmp_path: Path) -> None:
    ended: list[BaseException] = []

    def call() -> None:
        try:
            shell(Context.for_test(), ESCAPING + "sleep 605", shell=True, cwd=str(tmp_path))
        except CommandFailed as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    pids = _pids(tmp_path, 4)
    leader = int(Path(f"/proc/{pids[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    keeper = int(Path(f"/proc/{leader}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(keeper, signal.SIGKILL)
    thread.join()
    assert "the process that kept the command was killed" in str(ended[0])
    for pid in (leader, *pids):
        eventually(lambda pid=pid: _is_gone(pid), what=f"{pid} is gone")  # type: ignore[misc]


SCRIPT = """
import sys
from jobvisor import Client
from jobvisor.builtin.shell import shell
with Client(sys.argv[1]) as client:
    client.enqueue(shell, sys.argv[2], shell=True, cwd=sys.argv[3])
    client.run_one()
"""


def test_a_process_that_is_killed_takes_the_command_along_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "memory://", ESCAPING + "sleep 606", str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    pids = _pids(tmp_path, 4)
    process.kill()
    process.wait()
    for pid in pids:
        eventually(lambda pid=pid: _is_gone(pid), what=f"{pid} is gone")  # type: ignore[misc]


def _in_a_run(function: Callable[[], Any], *, job: int, home: str = "sqlite /x ") -> Any:
    def begin() -> Any:
        claimed = Claimed(job, "shell", "[]", "{}", 1, 1, 1, None, 0, 0, None, "default", 0)
        running.set((claimed, NONE, 0, None, Place("test", MovableClock(), home)))
        return function()

    return contextvars.copy_context().run(begin)


def test_a_second_run_of_a_job_waits_until_the_processes_of_the_first_are_gone() -> None:
    held = _in_a_run(lambda: take_fence(lambda: True), job=7)
    assert held is not None
    assert _in_a_run(lambda: take_fence(lambda: True), job=7) is None
    with _in_a_run(lambda: take_fence(lambda: True), job=8):
        held.close()
    with _in_a_run(lambda: take_fence(lambda: False), job=7) as again:
        assert again is not None
