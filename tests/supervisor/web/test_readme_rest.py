"""What README shows of the API is what it answers: its lines are executed, with the real curl."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.supervisor.web.serving import served
from tests.supervisor.web.shop import Shop
from tests.test_readme import README, _blocks, _expectations, _pattern

SECTION = README.split("### REST over HTTP")[1].split("\n### ")[0]


@pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq"))), reason="needs curl and jq")
def test_the_lines_of_readme_are_answered_as_it_says(tmp_path: Path) -> None:
    [block] = [block for info, block in _blocks(SECTION) if info == "console"]
    shop = Shop(f"sqlite:///{tmp_path}/jobs.db")
    with served(shop.app) as port:
        for number, (command, expected) in enumerate(_expectations(block)):
            here = command.replace("127.0.0.1:8321", f"127.0.0.1:{port}")
            done = subprocess.run(
                here, shell=True, capture_output=True, text=True, timeout=60, check=False
            )
            pattern = r"\n".join(_pattern(line) for line in expected)
            assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), (
                f"$ {here}\n{done.stdout}{done.stderr}"
            )
            if number == 0:  # the second job is there already, and has failed
                call = shop.client.call("app:send", "you@nowhere", options={"retries": 0})
                shop.client.enqueue(call)
                shop.run()
    shop.close()
