"""The API asked everything that its document allows, and more: no 5xx, no undocumented answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from jobvisor.jobs.clock import SECOND, SYSTEM
from tests.supervisor.web.shop import API, Shop

TOKEN = "a-token-of-twenty-letters"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
EXAMPLES = 8
JOBS_MOST = 200
OPERATIONS_LEAST = {GenerationMode.POSITIVE: 25, GenerationMode.NEGATIVE: 18}
# Of those that take nothing at all there is nothing to get wrong.

Schema = schemathesis.schemas.BaseSchema


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop(token=TOKEN)
    yield made
    made.close()


def ask(
    shop: Shop,
    api: Schema,
    mode: GenerationMode,
    *,
    examples: int,
    number: int,
    ends: int | None = None,
) -> int:
    """Ask each operation so often, until a moment if there is one; how many there were to ask."""
    asked = 0
    for found in api.get_all_operations():
        if ends is not None and SYSTEM.monotonic_ns() > ends:
            break
        assert isinstance(found, Ok)
        stock(shop)

        @seed(number)
        @settings(
            max_examples=examples,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=found.ok().as_strategy(generation_mode=mode), known=st.integers(0, 9))
        def run(case: schemathesis.Case[Any], known: int) -> None:
            if mode is GenerationMode.POSITIVE:
                aim(shop, case, known)
            else:
                # In an address every value is a text, and any text may stand there: none is wrong.
                assume("task" not in (case.query or {}))
            # What the document cannot say (durations, moments, the arguments of a task) is a 422.
            case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

        with suppress(Unsatisfiable):
            run()
            asked += 1
    return asked


def stock(shop: Shop) -> None:
    """Jobs in several states, and not more than some hundred."""
    shop.client.enqueue_many(shop.client.call("app:add", n) for n in range(3))
    shop.client.enqueue("app:send", "a@b.c", password="x")
    number = shop.client.enqueue("app:fail").id
    while shop.client.run_one(["default"]) is not None:
        if shop.client.get(number).finished:
            break
    for job in shop.client.list(limit=1_000)[JOBS_MOST:]:
        with suppress(Exception):
            shop.client.delete(job.id)


def aim(shop: Shop, case: schemathesis.Case[Any], known: int) -> None:
    """Mean a job and a task that there are, in most of the cases: what is made up is seldom there."""
    if known > 6:
        return
    jobs = shop.client.list(limit=10)
    if "job_id" in (case.path_parameters or {}) and jobs:
        case.path_parameters["job_id"] = jobs[known % len(jobs)].id
    if isinstance(case.body, dict) and "task" in case.body:
        case.body["task"] = ("app:add", "app:send", "app:once")[known % 3]


def loaded(shop: Shop) -> Schema:
    # A body that is wrong may be too large before anybody sees that: 413. And no 5xx is a refusal.
    refusals = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
    checks = {"negative_data_rejection": {"expected-statuses": refusals}}
    api = schemathesis.openapi.from_asgi(
        f"{API}/openapi.json",
        shop.app,
        config=schemathesis.Config.from_dict({"checks": checks}),
        headers=HEADERS,
    )
    return api.exclude(path_regex="/events$")  # they have no end


@pytest.mark.timeout(400)  # 12 s of computing, on a machine that may have much else to do
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_one_that_the_document_has(shop: Shop, mode: GenerationMode) -> None:
    asked = ask(shop, loaded(shop), mode, examples=EXAMPLES, number=1)
    assert asked >= OPERATIONS_LEAST[mode]


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_answer_is_one_that_the_document_has_for_long(shop: Shop) -> None:
    api = loaded(shop)
    ends = SYSTEM.monotonic_ns() + int(os.environ.get("JOBVISOR_TEST_SOAK_SECONDS", "600")) * SECOND
    number = int(os.environ.get("JOBVISOR_TEST_SEED", "2"))
    while SYSTEM.monotonic_ns() < ends:
        for mode in GenerationMode:
            ask(shop, api, mode, examples=50, number=number, ends=ends)
        number += 1
