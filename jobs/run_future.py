"""A future of what may run several times: it can also be cancelled between two runs, or as a job."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

__all__ = ["RunFuture"]

T = TypeVar("T")


class RunFuture(Future[T]):
    """As `concurrent.futures.Future`, which knows no way back from running."""

    def __init__(self, withdraw: Callable[[Any], bool] | None = None) -> None:
        """`withdraw` is asked by `cancel` where it has run before: whether it will not run again."""
        super().__init__()
        self._withdraw = withdraw
        self._is_withdrawn = False

    def cancel(self) -> bool:
        """Whether it will not run, or not again."""
        if super().cancel():
            return True
        if not self.done() and self._withdraw is not None and self._withdraw(self):
            self.end_cancelled()
        return self.cancelled()

    def end_cancelled(self) -> None:
        """It has ended, and was cancelled; said once, by who has taken it out of what is to run."""
        if super().cancel():
            self.set_running_or_notify_cancel()  # or who waits for several would not hear of it
        elif not self.done():
            self._is_withdrawn = True
            self.set_exception(CancelledError())

    def cancelled(self) -> bool:
        """Whether it was."""
        return super().cancelled() or (self._is_withdrawn and self.done())

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What it raised at last; CancelledError is raised where it was cancelled."""
        error = super().exception(timeout)
        if self._is_withdrawn and isinstance(error, CancelledError):
            raise error
        return error


def settle(future: Future[Any], value: Any = None, error: BaseException | None = None) -> None:
    """Tell its end, unless it has one already."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
