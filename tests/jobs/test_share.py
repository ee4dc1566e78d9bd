"""On whose behalf a job runs: `share=` and `weight=`, from the decorator to the row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Client, task
from jobvisor.jobs.described import BY_FUNCTION, described, options_of
from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.registry import registry
from jobvisor.supervisor.config import Config

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_tasks", "_by_name"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


@pytest.fixture
def client() -> Any:
    with Client("memory://") as made:
        yield made


def plain(tenant: Any = None, n: int = 0) -> None:
    """A task's function."""


def test_a_share_is_a_text_or_made_of_the_arguments(client: Client) -> None:
    by_text = task(plain, name="text", share="all", weight=2)
    by_function = task(
        plain, name="function", share=lambda tenant, *_: tenant, weight=lambda _, n=0: n or 1
    )
    made = [
        client.enqueue(by_text),
        client.enqueue(by_function, "t1", 3),
        client.enqueue(by_function, 7),
        client.enqueue(by_function.using(share="other", weight=5), "t1"),
        client.enqueue(by_function, None),
        client.enqueue(task(plain, name="none", weight=9)),
    ]
    assert [(job.share, job.weight) for job in made] == [
        ("all", 2), ("t1", 3), ("7", 1), ("other", 5), (None, None), (None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": ""}, "share='' must be a str of 1 to 500 characters"),
        ({"share": 7}, "share=7 must be a str"),
        ({"share": "a\0"}, "contains NUL"),
        ({"share": "x" * 501}, "share="),
        ({"weight": 0}, "weight=0 must be a whole number from 1 to 1000"),
        ({"weight": 1_001}, "weight=1001 must be"),
        ({"weight": 1.5}, "weight=1.5 must be"),
        ({"weight": True}, "weight=True must be"),
    ],
)
def test_what_is_no_share_or_weight_is_refused_where_it_is_written(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidOption, match=re.escape(words)):
        task(plain, name="bad", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": lambda *_: 1.5}, "share=1.5 must be a str"),
        ({"share": lambda *_: True}, "share=True must be a str"),
        ({"share": "a", "weight": lambda *_: 0}, "weight=0 must be a whole number"),
    ],
)
def test_what_a_function_returns_is_judged_at_the_enqueue(
    client: Client, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidOption, match=re.escape(words)):
        client.enqueue(task(plain, name="bad", **options))


def test_a_worker_tells_of_them() -> None:
    told = described(task(plain, name="told", share="a", weight=3))["options"]
    assert (told["share"], told["weight"]) == ("a", 3)
    assert (options_of(told).share, options_of(told).weight) == ("a", 3)
    made = described(task(plain, name="made", share=lambda *_: "a"))["options"]
    assert made["share"] == BY_FUNCTION
    assert options_of(made).share is None


def test_a_client_says_which_queues_are_fair(client: Client) -> None:
    assert client.set_fair("mail")
    assert not client.set_fair("mail")
    assert client.fair_queues() == ["mail"]
    client.enqueue(task(plain, name="vain", share="a", queue="bulk"))
    assert client.shares_in_vain() == ["bulk"]
    assert client.set_fair("mail", False)
    assert client.fair_queues() == []
    with pytest.raises(InvalidOption, match="no queue name"):
        client.set_fair("two words")


def test_a_config_says_it_too() -> None:
    config = Config.of({"queues": {"mail": {"fair": True}, "bulk": {}}})
    assert [(queue.name, queue.fair) for queue in config.named_queues] == [
        ("mail", True), ("bulk", None),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no queue name"):
        Config.of({"queues": {"two words": {"fair": True}}})


def test_the_example_of_fair_queues_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python fair\.py\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    exec(compile(block, "fair.py", "exec"), {"__name__": "__main__"})
    (told,) = re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.strip() == told
