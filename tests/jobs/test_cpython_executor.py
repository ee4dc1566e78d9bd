"""CPython's own tests of executors and futures, of the interpreter that runs this, with ours in their place.

They come from its package `test`, which not every interpreter has. What does not apply is named with the
reason. `Client.executor()` is tested by those of futures alone: the others submit functions and locks of the
test, and what is enqueued is a task, with arguments that are data.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import unittest
from collections.abc import Iterator
from concurrent.futures import Executor
from types import ModuleType
from typing import Any

import pytest

from jobvisor import LocalQueue
from jobvisor.jobs.run_future import RunFuture

PACKAGE = "test.test_concurrent_futures"
PARTS = ("executor", "test_wait", "test_as_completed", "test_shutdown", "test_thread_pool")

#: Test -> why it says nothing about a LocalQueue, or a future of ours.
NOT_OURS = {
    "test_max_workers_negative": "ours says `threads`, in words of its own",
    "test_default_workers": "ours has four threads, not as many as processors",
    "test_hang_global_shutdown_lock": "about a lock of ThreadPoolExecutor and a process pool",
    "test_interpreter_shutdown": "its program makes a ThreadPoolExecutor; ours has a test of its own",
    "test_submit_after_interpreter_shutdown": "as above",
    "test_hang_gh83386": "as above",
    "test_cancel_futures_wait_false": "as above",
    "test_thread_names_assigned": "ours says `name`, and counts on with `_`",
    "test_thread_names_default": "as above",
    "test_context_manager_shutdown": "makes a ThreadPoolExecutor by its name",
    "test_del_shutdown": "as above; ours has a test of its own",
    "test_shutdown_no_wait": "as above",
    "test_idle_thread_reuse": "counts on a race: a thread may not rest yet when the next call comes",
    "test_done_callback_raises": "reads standard error, where the log goes only without pytest",
    "test_done_callback_raises_already_succeeded": "as above",
    "test_map_timeout": "waits five seconds for what a test of ours shows at once",
    "test_first_exception": "waits three seconds for what its neighbours show",
}

if importlib.util.find_spec("test") is None or importlib.util.find_spec(PACKAGE) is None:
    pytest.skip(f"this interpreter has no {PACKAGE}", allow_module_level=True)
if importlib.util.find_spec(f"{PACKAGE}.executor") is None:
    pytest.skip(f"{PACKAGE} is one module here, made for process pools", allow_module_level=True)


class _Queue(LocalQueue):
    """A LocalQueue by the words of ThreadPoolExecutor."""

    def __init__(self, max_workers: int = 4, **_others: Any) -> None:
        super().__init__(max_workers)
        self._max_workers = max_workers

    @property
    def _threads(self) -> set[Any]:
        return set(self._calls.threads)


class _Mixin:
    worker_count = 5
    executor: Executor | None

    def setUp(self) -> None:
        self.executor = self.executor_type(self.worker_count)

    def tearDown(self) -> None:
        if self.executor is not None:
            self.executor.shutdown()
        self.executor = None

    executor_type = _Queue


def _cases() -> Iterator[type[unittest.TestCase]]:
    """Their test classes about executors, with ours."""
    for part in PARTS:
        module = importlib.import_module(f"{PACKAGE}.{part}")
        for name, found in vars(module).items():
            if isinstance(found, type) and found.__module__ == module.__name__ and _is_about(name):
                plain = [base for base in found.__mro__ if _is_theirs(base)]
                yield type(f"Local{name}", (*plain, _Mixin, unittest.TestCase), {})


def _is_about(name: str) -> bool:
    return name in {
        "ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest", "ThreadPoolExecutorTest",
        "ThreadPoolWaitTests", "ThreadPoolShutdownTest",
    }  # fmt: skip


def _is_theirs(base: type) -> bool:
    return base.__module__.startswith(PACKAGE) and base.__name__ not in {
        "ThreadPoolMixin", "ExecutorMixin", "BaseTestCase",
    }  # fmt: skip


def _future_cases() -> Iterator[type[unittest.TestCase]]:
    """Their tests of futures, in copies of their modules that make ours."""

    class Future(RunFuture[Any]):
        """Named as they name it."""

    util = _copied(f"{PACKAGE}.util")
    util.Future = Future  # type: ignore[attr-defined]
    for name, value in list(vars(util).items()):
        if name.endswith("_FUTURE"):
            made = util.create_future(value._state, value._exception, value._result)
            setattr(util, name, made)
    tests = _copied(f"{PACKAGE}.test_future")
    for name in vars(tests).keys() & vars(util).keys():
        if name.endswith("_FUTURE") or name in {"create_future", "Future"}:
            setattr(tests, name, getattr(util, name))
    yield tests.FutureTests


def _copied(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _all() -> Iterator[Any]:
    seen: set[str] = set()
    for case in [*_cases(), *_future_cases()]:
        for name in unittest.TestLoader().getTestCaseNames(case):
            if name not in seen:  # what a class inherits is run once
                seen.add(name)
                yield pytest.param(case, name, id=name)


@pytest.mark.parametrize(("case", "name"), list(_all()))
def test_cpython(case: type[unittest.TestCase], name: str) -> None:
    if name in NOT_OURS:
        pytest.skip(NOT_OURS[name])
    result = unittest.TestResult()
    gc.freeze()  # some of them collect garbage a dozen times: of this test alone
    try:
        case(name).run(result)
    finally:
        gc.unfreeze()
    problems = [text for _test, text in [*result.errors, *result.failures]]
    assert not problems, problems[0]


def test_every_test_that_is_left_out_is_there() -> None:
    names = {param.values[1] for param in _all()}
    if sys.version_info >= (3, 13):  # the list was made for this one
        assert NOT_OURS.keys() <= names
