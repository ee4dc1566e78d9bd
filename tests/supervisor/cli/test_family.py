"""stop, reload, scale, status and health against a process that plays the family."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.cli.site import find_site
from jobvisor.supervisor.documents.standing import trouble
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.steering import wait_pools
from tests.supervisor.cli.conftest import WELL, Player, Run
from tests.waiting import eventually

Play = Callable[..., Player]


@pytest.mark.parametrize("command", [["stop"], ["reload"], ["scale", "3"]])
def test_without_a_family_nothing_is_signalled(run: Run, folder: Path, command: list[str]) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith("jobvisor: no family runs in ")
    assert not (folder / ".jobvisor").exists()


def test_stop_waits_until_the_family_has_left(run: Run, play: Play) -> None:
    player = play()
    result = run("stop")
    assert result.exit_code == 0
    assert result.stderr.endswith("stopped\n")
    assert player.heard() == ["SIGTERM"]


def test_stop_now_asks_for_the_quick_way(run: Run, play: Play) -> None:
    player = play()
    assert run("stop", "--now").exit_code == 0
    assert player.heard() == ["SIGQUIT"]


def test_stop_kills_what_outlasts_its_patience_and_says_so(run: Run, play: Play) -> None:
    player = play("SIGTERM")
    result = run("stop", "--timeout", "100ms")
    assert result.exit_code == 75
    assert "still running after 100ms: killing what is left" in result.stderr
    assert player.heard() == ["SIGTERM", "SIGQUIT"]


def test_stop_names_a_bad_timeout_before_it_stops_anything(run: Run, play: Play) -> None:
    player = play()
    result = run("stop", "--timeout", "soon")
    assert result.exit_code == 2
    assert "--timeout: 'soon'" in result.stderr
    assert player.heard() == []


def test_stop_does_not_ask_again_who_is_stopping_and_so_kills_nothing(run: Run, play: Play) -> None:
    player = play("SIGTERM", state="stopping")
    result = run("stop", "--timeout", "100ms")
    assert result.exit_code == 75
    assert player.heard() == ["SIGQUIT"]  # of its own timeout


def test_stop_does_not_ask_again_whose_caretaker_has_not_written_it_yet(
    run: Run, play: Play, folder: Path
) -> None:
    player = play("SIGTERM")
    os.kill(player.pid, signal.SIGTERM)
    state = StateDir(str(folder / ".jobvisor"))
    eventually(state.is_stopping, what="the word of the family")
    assert (state.status() or {})["state"] == "running"
    assert run("stop", "--timeout", "100ms").exit_code == 75
    assert player.heard() == ["SIGTERM", "SIGQUIT"]


def test_stop_says_when_the_family_had_to_kill(run: Run, play: Play) -> None:
    player = play(says="ended 75")
    result = run("stop")
    assert result.exit_code == 75
    assert result.stderr.endswith("killed and given back, as its log says\n")
    assert player.heard() == ["SIGTERM"]


def test_reload_is_one_hup_and_waits_for_the_answer(run: Run, play: Play) -> None:
    player = play()
    result = run("reload")
    assert result.exit_code == 0
    assert result.stderr.endswith("reloaded\n")
    assert player.heard() == ["SIGHUP"]


def test_a_refused_reload_is_an_error_with_the_reason(run: Run, play: Play) -> None:
    play(reload={"number": 4, "state": "refused", "reason": "worker 1 cannot start: no module"})
    result = run("reload")
    assert result.exit_code == 1
    assert "reload refused: worker 1 cannot start: no module" in result.stderr


def test_a_reload_that_takes_long_goes_on_without_the_command(run: Run, play: Play) -> None:
    play(reload={"number": 4, "state": "going on", "reason": None})
    result = run("reload", "--timeout", "50ms")
    assert result.exit_code == 1
    assert "is not done after 50ms and goes on" in result.stderr


def test_reload_refuses_a_bad_file_here(run: Run, folder: Path, play: Play) -> None:
    player = play()
    with (folder / "config.toml").open("a") as file:
        file.write("proceses = 3\n")
    result = run("reload")
    assert result.exit_code == 78
    assert 'did you mean "processes"?' in result.stderr
    assert player.heard() == []


@pytest.mark.parametrize(
    ("words", "pool", "workers"),
    [
        (["default", "4"], "default", 4),
        (["default", "+3"], "default", 5),
        (["default", "-1"], "default", 1),
        (["mail", "1"], "mail", 1),
    ],
)
def test_scale_asks_for_a_number_of_workers_in_a_pool(
    run: Run, play: Play, words: list[str], pool: str, workers: int
) -> None:
    player = play(pools={"default": 2, "mail": 3})
    result = run("scale", *words)
    assert result.exit_code == 0
    assert f"pool {pool} has {workers} workers" in result.stderr
    assert player.heard() == ["SIGWINCH"]


def test_scale_of_the_only_pool_needs_no_name(run: Run, play: Play) -> None:
    player = play()
    result = run("scale", "2")
    assert result.exit_code == 0
    assert "pool default has 2 workers" in result.stderr
    assert player.heard() == ["SIGWINCH"], "the status may be behind: the family is asked"


@pytest.mark.parametrize("command", [["reload"], ["scale", "3"]])
def test_a_family_of_a_release_that_does_not_answer_is_not_waited_for(
    run: Run, play: Play, command: list[str]
) -> None:
    status = {name: value for name, value in WELL.items() if name not in ("pools", "reload")}
    player = Player(Path.cwd(), {**status, "version": "0.2.0"}, ())
    result = run(*command)
    assert result.exit_code == 1
    assert "runs release 0.2.0" in result.stderr
    assert player.heard() == []


@pytest.mark.parametrize("words", [["3"], ["fast", "3"]])
def test_scale_names_the_pools_there_are(run: Run, play: Play, words: list[str]) -> None:
    play(pools={"default": 2, "mail": 3})
    result = run("scale", *words)
    assert result.exit_code == 2
    assert "default, mail" in result.stderr


def test_scale_says_why_the_family_refuses(run: Run, play: Play) -> None:
    play(refuses="pool default cannot have 300 workers: at most 240 are possible")
    result = run("scale", "300")
    assert result.exit_code == 2
    assert "cannot have 300 workers: at most 240" in result.stderr


def test_scale_of_a_family_that_stops_is_told_as_such(run: Run, play: Play) -> None:
    play(stops=True)
    result = run("scale", "3")
    assert result.exit_code == 1
    assert "family main is stopping" in result.stderr


@pytest.mark.parametrize("wanted", ["two", "", "+-1", "1.5", "--1", "9" * 5000])
def test_scale_takes_only_numbers(run: Run, folder: Path, wanted: str) -> None:
    assert run("scale", wanted).exit_code == 2


def test_a_family_that_shows_no_status_is_named(folder: Path, play: Play) -> None:
    player = play(pools={})
    state = StateDir(str(folder / ".jobvisor"))
    with pytest.raises(JobsError, match=rf"\(pid {player.pid}\) has shown no status in 0.1 s"):
        wait_pools(state, patience_s=0.1)


def test_status_shows_the_workers(run: Run, play: Play) -> None:
    player = play()
    result = run("status")
    assert result.exit_code == 0
    assert f"family main: running, pid {player.pid}" in result.stdout
    assert "20MB" in result.stdout
    assert "1m15s" in result.stdout
    assert "SIGKILL" in result.stdout
    told = json.loads(run("status", "--json").stdout)
    assert told["workers"] == WELL["workers"]
    assert told["queues"] is None


def test_status_of_a_stopped_family_is_exit_code_1(run: Run, folder: Path) -> None:
    result = run("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "stopped"
    assert json.loads(result.stdout)["workers"] == []
    assert not (folder / "jobs.db").exists()


def test_status_left_behind_by_an_earlier_family_is_not_shown(
    run: Run, folder: Path, play: Play
) -> None:
    play(pid=1)
    assert json.loads(run("status", "--json").stdout)["state"] == "starting"


def test_status_names_a_queue_nobody_serves(run: Run, folder: Path, play: Play) -> None:
    play()
    site = find_site(None)
    with site.client(create=True) as client:
        for queue in ("default", "mail", "lonely"):
            client.enqueue(client.call("a:b", options={"queue": queue}))
        client.enqueue(client.call("a:b", options={"queue": "later", "run_in": "1h"}))
    result = run("status", "--json")
    told = json.loads(result.stdout)
    assert told["unserved"] == ["lonely"]
    assert "no pool serves queue 'lonely'" in result.stderr
    counted = json.loads(run("status", "--json", "--counts").stdout)
    assert counted["unserved"] == ["later", "lonely"]
    assert counted["queues"]["mail"]["pending"] == 1


def test_status_shows_the_family_though_the_database_is_broken(
    run: Run, folder: Path, play: Play
) -> None:
    play()
    (folder / "jobs.db").write_text("dear diary, " * 100)
    result = run("status")
    assert result.exit_code == 0
    assert "the queues cannot be shown" in result.stderr


def test_health_is_one_line_and_an_exit_code(run: Run, folder: Path, play: Play) -> None:
    assert (run("health").stdout, run("health").exit_code) == ("not running\n", 1)
    player = play()
    assert run("health").stdout == f"family main is well (pid {player.pid})\n"
    assert json.loads(run("health", "--json").stdout) == {
        "healthy": True,
        "reason": None,
        "warnings": [],
        "pid": player.pid,
    }


NOW = datetime.fromtimestamp(SYSTEM.now_ms() / 1000, UTC)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (None, "starting: no status yet"),
        ({"pid": 8}, "starting: no status yet"),
        ({"written_at": (NOW - timedelta(seconds=60)).isoformat()}, "s old"),
        ({"written_at": "yesterday"}, "of unknown age"),
        ({"degraded": ["disk full"]}, "degraded: disk full"),
        ({"state": "degraded"}, "degraded: no reason given"),
        ({"state": "stopping"}, "stopping"),
        ({"waiting_for_database": True}, "waiting for the database"),
        ({"workers": []}, "no worker is ready"),
        ({"workers": [{"state": "booting"}, {"state": "backoff"}]}, "no worker is ready"),
    ],
)
def test_what_is_wrong_with_a_family_is_said(status: dict[str, Any] | None, reason: str) -> None:
    well = WELL | {"pid": 7, "written_at": (NOW + timedelta(hours=1)).isoformat()}
    assert trouble(well, 7) is None
    found = trouble(None if status is None else well | status, 7)
    assert found is not None
    assert reason in found


MISTAKES = ["[supervisor]\nnam = 3\n", "[supervisor\n", "[log]\nlevel = 'loud'\n", "[[worker]]\n"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_family_is_stopped_though_its_configuration_has_a_mistake(
    run: Run, folder: Path, play: Play, mistake: str
) -> None:
    player = play()
    (folder / "config.toml").write_text(f"[supervisor]\nstate_dir = '.jobvisor'\n{mistake}")
    assert run("status").stdout.startswith("family main: running")
    assert run("health").stdout == f"family main is well (pid {player.pid})\n"
    result = run("stop")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: config.toml")
    assert player.heard() == ["SIGTERM"]


def test_the_state_directory_is_found_in_a_file_that_is_no_toml(run: Run, folder: Path) -> None:
    (folder / "config.toml").write_text("= x\n[supervisor]\nname = 'shop'\nstate_dir = 'there'\n")
    result = run("stop")
    assert result.exit_code == 1
    assert f"no family runs in {folder}/there" in result.stderr


@pytest.mark.parametrize("line", ["state_dir = 3", "state_dir = 'there"])
def test_a_mistake_in_the_state_directory_itself_is_refused(
    run: Run, folder: Path, line: str
) -> None:
    (folder / "config.toml").write_text(f"[supervisor]\n{line}\n")
    assert run("stop").exit_code == 78


def test_the_time_of_a_worker_that_runs_nothing_is_not_told_as_the_time_of_a_job(
    run: Run, play: Play
) -> None:
    idle = {"slot": 1, "pid": 11, "state": "idle", "job": None, "up_seconds": 75.5}
    play(workers=[idle])
    head, line = (row.split() for row in run("status").stdout.splitlines()[1:3])
    assert dict(zip(head, line, strict=True)) == {
        "SLOT": "1", "POOL": "-", "PID": "11", "STATE": "idle", "JOB": "-", "FOR": "-",
        "RUNS": "-", "UP": "1m15s", "MEMORY": "-",
    }  # fmt: skip


def test_status_shows_who_leaves_and_why_and_what_became_of_the_last_reload(
    run: Run, play: Play
) -> None:
    lingers = {"slot": 1, "pid": 11, "state": "busy", "leaving": "reload", "job": 7}
    play(
        workers=[lingers],
        reload={"number": 2, "state": "refused", "reason": "worker 3 cannot start: no such host"},
    )
    shown = run("status").stdout
    assert "the last reload was refused: worker 3 cannot start: no such host" in shown
    assert "busy (reload)" in shown


UNKNOWN = {"task": "app:sned", "jobs": 2, "error": "unknown: no module has it; did you mean x?"}
WORDS = "2 jobs wait for 'app:sned': no module has it; did you mean x?"


def test_health_warns_of_jobs_whose_task_no_module_has(run: Run, play: Play) -> None:
    play(unknown_tasks=[UNKNOWN])
    result = run("health")
    assert (result.exit_code, result.stderr) == (0, f"warning: {WORDS}\n")
    assert json.loads(run("health", "--json").stdout)["warnings"] == [WORDS]


def test_status_and_doctor_warn_of_jobs_whose_task_no_module_has(run: Run, play: Play) -> None:
    play()
    with find_site(None).client(create=True) as client:
        for _ in range(2):
            client.enqueue("tests.supervisor.cli.sample:ad", 1)
        client.enqueue("tests.supervisor.cli.sample:ad", 1, 2)
        while client.run_one():
            pass
    (warning,) = [line for line in run("status").stderr.splitlines() if "wait for" in line]
    assert warning.startswith("warning: 3 jobs wait for 'tests.supervisor.cli.sample:ad': ")
    (told,) = json.loads(run("status", "--json").stdout)["unknown_tasks"]
    assert (told["task"], told["jobs"]) == ("tests.supervisor.cli.sample:ad", 3)
    assert "3 jobs wait for" in run("doctor").stdout
