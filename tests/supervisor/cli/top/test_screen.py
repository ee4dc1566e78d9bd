"""What `jobvisor top` shows, and how it stands in terminals of every size."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rich.cells import cell_len

from jobvisor.jobs.client import Client
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli.top.rows import queues
from tests.screen import Played
from tests.supervisor.cli.conftest import Player, Run
from tests.supervisor.cli.top.conftest import Show

Play = Callable[..., Player]


def widest(played: Played) -> int:
    return max(cell_len(line) for line in played.screen.text)


def test_it_shows_the_family_its_workers_what_waits_and_who_died(
    play: Play, show: Show, client: Client
) -> None:
    client.enqueue("app:send", 1)
    play(unknown_tasks=[{"task": "app:sned", "jobs": 2, "error": None}])
    top = show()
    text = top.see("family main: running", "default", "busy", "1m15s", "SIGKILL")
    assert "running 1 of 2" in text
    assert "2 jobs wait for 'app:sned'" in text
    assert "q quit" in top.screen.text[-1]
    top.press("q")
    assert (top.ended(), top.restored) == (0, True)


@pytest.mark.parametrize("size", [(40, 14), (40, 24), (25, 8), (10, 3), (1, 1), (200, 60)])
def test_a_terminal_of_any_size_is_filled_and_never_overrun(
    play: Play, show: Show, client: Client, size: tuple[int, int]
) -> None:
    for number in range(30):
        client.enqueue("app:send_something_to_somebody", "x" * 100, number=number)
    play(degraded=["worker 3 keeps dying and is started again with growing delay"])
    top = show(size=size)
    top.until(lambda: any(top.screen.text), "anything")
    for key in ("2", "\r", "\x1b", "f", "?", "\x1b", "/", "x", "\r"):
        top.press(key)
    top.press("q")
    assert (top.ended(), top.restored) == (0, True)


def test_a_narrow_terminal_keeps_what_matters(play: Play, show: Show, client: Client) -> None:
    client.enqueue("app:send_something_to_somebody", "x" * 100)
    play()
    top = show(size=(40, 20))
    text = top.see("family main: running", "busy", "1m15s", "20MB")
    assert "pool" not in text
    top.press("2")
    top.see("app:send_", "pending")
    assert widest(top) <= 40


def test_it_fits_itself_to_a_terminal_that_changes_its_size(
    play: Play, show: Show, client: Client
) -> None:
    client.enqueue("app:send", 1)
    play()
    top = show(size=(40, 20), env={"COLUMNS": "40", "LINES": "20"})
    top.see("running", but=["served"])
    top.resize(120, 30)
    top.see("served", "pool", "q quit")
    assert top.screen.text[29].startswith("q quit")
    top.resize(50, 12)
    top.see("running", "q quit", but=["served"])
    assert widest(top) <= 50


def test_of_a_queue_it_says_that_it_is_paused_and_how_much_is_blocked() -> None:
    told = {"served": True, "oldest_pending_ms": 5_000, "paused": {"since": "x"}, "pending": 1}
    [row] = queues({"mail": told | {"blocked": 2_001}}, {"blocked"}).rows
    assert row.cells == ["mail", "1", "5s", "-", "-", "2001+", "-", "paused"]
    assert row.style == "yellow"


def test_no_colour_is_sent_where_none_is_wanted(play: Play, show: Show, client: Client) -> None:
    play(degraded=["x"])
    plain = show(env={"NO_COLOR": "1"})
    plain.see("running")
    coloured = show()
    coloured.see("running")
    colours = {str(number) for number in (*range(30, 38), *range(90, 98))}
    assert plain.screen.colours & colours == set()
    assert coloured.screen.colours & colours


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (("top",), {}, "top needs a terminal to read keys from and to draw on; `jobvisor status`"),
    ],
)
def test_without_a_terminal_it_is_refused_in_one_line(
    run: Run, client: Client, args: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    result = run(*args, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_terminal_without_a_cursor_is_refused(show: Show, client: Client) -> None:
    top = show(env={"TERM": "dumb"})
    assert top.ended() == 2
    assert "cannot be drawn on" in top.text
    assert top.restored


def test_a_mistake_in_the_configuration_is_one_line_before_anything_is_drawn(
    show: Show, folder: Path
) -> None:
    (folder / "config.toml").write_text('[supervisor]\nnaem = "x"\n')
    top = show()
    assert top.ended() == 78
    assert "naem" in top.text
    assert top.restored


def test_what_strangers_wrote_cannot_steer_the_terminal(
    play: Play, show: Show, client: Client, folder: Path
) -> None:
    for text in ("\x1b[2J\x1b]0;title\x07", "a\rb\nc\td", "\u202eright to left", "漢字" * 40):
        client.enqueue("app:send", text, unique=text)
    with closing(sqlite3.connect(folder / "jobs.db")) as stranger, stranger:
        stranger.execute(
            "UPDATE jobs SET error = 'x' || char(27) || '[31mred', state = 'failed', finished_at = 1"
            " WHERE id = 1"
        )
    play(state="\x1b[5m", degraded=["\x1b[2J\nthere"])
    top = show(size=(160, 30))
    top.see("there", "\\x1b[2J")
    top.press("2")
    top.see("\\x1b[31mred")
    top.press("G\r")
    top.see("job 1 ", "x\\x1b[31mred", "\\u001b]0;title")


def test_without_a_family_it_shows_the_database(show: Show, client: Client, folder: Path) -> None:
    client.enqueue("app:send", 1)
    top = show()
    top.see("family main: stopped", "jobvisor start")
    os.unlink(folder / "config.toml")
    other = show(env={"JOBVISOR_DATABASE_URL": client.url})
    other.see("jobs: 1 of 1", "app:send", but=["family main"])


def test_other_families_on_the_database_are_told_and_whether_they_are_silent(
    play: Play, show: Show, client: Client
) -> None:
    now = int(time.time() * 1000)
    with closing(sqlite3.connect(parse_url(client.url).path)) as stranger, stranger:
        for number, (host, beat) in enumerate((("web1", now), ("web2", now - 3_600_000)), 1):
            stranger.execute(
                "INSERT INTO families VALUES (?, 'other', ?, '', 1, 77, 1, '0.5', '', 600000, ?, ?, NULL)",
                (number, host, now, beat),
            )
    play()
    show().see(
        "family main: running",
        "family other on web1, pid 77",
        "family other on web2, pid 77: silent for 1h",
    )


def test_a_family_that_is_killed_is_told_and_one_that_comes_back_too(
    play: Play, show: Show, client: Client
) -> None:
    family = play()
    top = show()
    top.see("family main: running", "busy")
    family.heard()
    top.see("family main: stopped", "it is not running", but=["busy"])
    play()
    top.see("family main: running", "busy")


def test_a_status_that_is_damaged_is_told(
    play: Play, show: Show, client: Client, folder: Path
) -> None:
    play()
    (folder / ".jobvisor" / "status.json").write_text("{")
    show(size=(240, 30)).see("family main: not yet known", "status.json cannot be read")


def test_a_database_that_is_away_is_told_and_waited_for(
    play: Play, show: Show, client: Client, folder: Path
) -> None:
    play()
    client.enqueue("app:send", 1)
    client.close()
    top = show()
    top.press("2")
    top.see("jobs: 1 of 1")
    (folder / "jobs.db").rename(folder / "elsewhere")
    top.see("the database cannot be asked: there is no database")
    top.press("\r")
    top.see("job 1", "there is no database")
    (folder / "elsewhere").rename(folder / "jobs.db")
    top.see("task: ", "app:send")
    assert not (folder / "elsewhere").exists()
