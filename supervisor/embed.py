"""A family started from somebody's own script: in its process, or beside it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import FamilyNotRunning, JobsError
from jobvisor.jobs.log import configure
from jobvisor.jobs.registry import registry
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir

if TYPE_CHECKING:
    import subprocess

READY_POLL = 0.01  # seconds between two looks whether the family is ready

_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where the package `jobvisor` was found."""

# Found first, so that the same release runs there, and then taken off the path again.
_BOOTSTRAP = """
import sys
sys.path.insert(0, sys.argv[1])
from jobvisor.supervisor.embed import main
del sys.path[0], sys.argv[1]
main()
"""


class Supervisor:
    """One family, described by a Config.

    `run` makes this very process the parent; `start`, `stop` and `join`, or `with ... .running()`,
    put the family beside it, in a fresh interpreter, so that the script may have threads and
    signal handlers of its own. However the script ends, the family drains and leaves.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop = False

    def run(self, *, drain: bool = False) -> int:
        """Be the parent until the family stops; the exit code (0, 69, 75, 78).

        Raises JobsError where this process has other threads (a fork would copy their locks in
        whatever state they are), FamilyRunning where the state directory has a family.
        """
        return run_family(self.config, drain=drain)

    def start(self, *, drain: bool = False) -> None:
        """Start the family beside this process and return at once; `running` waits until it is ready."""
        if self._process is not None and self._process.poll() is None:
            raise JobsError(f"this family was started already, as pid {self._process.pid}")
        # Imported here: who only runs a family, or none, pays for neither.
        import pickle  # noqa: PLC0415
        import subprocess  # noqa: PLC0415

        self._asked_to_stop = False
        # -P: a file of the working directory must not stand in for a module of Python's. The way to
        # this package is told beside the environment, which every process of a task inherits.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOTSTRAP, _FOLDER],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C of the script's terminal is the script's
        )
        if self._process.stdin is None:
            raise JobsError("the family has no pipe to this process")
        # The pipe stays open: its end is how the family learns that this process has ended.
        try:
            self._process.stdin.write(pickle.dumps((self.config, drain, os.getpid())))
            self._process.stdin.flush()
        except BrokenPipeError:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            code = self._process.wait()
            raise JobsError(
                f"the family's interpreter {sys.executable} ended with exit code {code} before it "
                "had read its configuration"
            ) from None

    def stop(self, timeout: float | None = None) -> int:
        """Ask the family to drain and wait for it; killed after `timeout` seconds. The exit code."""
        process = self._started()
        if not self._asked_to_stop:
            self._asked_to_stop = True  # a second SIGTERM would kill
            process.terminate()
        try:
            return self.join(timeout)
        except JobsError:
            process.send_signal(signal.SIGQUIT)  # what still runs is killed, its jobs given back
            return self.join()

    def join(self, timeout: float | None = None) -> int:
        """Wait until the family has left; the exit code. JobsError if it has not after `timeout`."""
        from subprocess import TimeoutExpired  # noqa: PLC0415 -- loaded by `start`

        process = self._started()
        try:
            code = process.wait(timeout)
        except TimeoutExpired:
            raise JobsError(
                f"the family (pid {process.pid}) still runs after {timeout} s"
            ) from None
        if process.stdin is not None:
            process.stdin.close()
        return code

    def wait_ready(self, timeout: float | None = None) -> None:
        """Until every worker has imported its tasks; JobsError if the family ends before that."""
        process = self._started()
        limit = self.config.family.boot_timeout_ms / 1000 if timeout is None else timeout
        ends = SYSTEM.monotonic_ns() + int(limit * 1e9)
        state = StateDir(self.config.family.state_dir)
        while True:
            if process.poll() is not None:
                raise JobsError(
                    f"the family ended with exit code {process.returncode} before it was ready; "
                    f"its log says why"
                )
            status = state.status()
            if status and status["pid"] == process.pid and _all_ready(status):
                return
            if SYSTEM.monotonic_ns() > ends:
                raise JobsError(f"the family is not ready after {limit:g} s; its log says why")
            SYSTEM.sleep(READY_POLL)

    @contextmanager
    def running(self, *, timeout: float | None = None) -> Iterator[Supervisor]:
        """The family runs within the block and is stopped after it (`timeout` as in `stop`)."""
        self.start()
        try:
            self.wait_ready()
            yield self
        finally:
            if self._started().poll() is None:
                self.stop(timeout)

    @property
    def pid(self) -> int | None:
        """The parent's pid while it runs beside this process."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise FamilyNotRunning("this family was not started; call start() first")
        return self._process


def _all_ready(status: dict[str, Any]) -> bool:
    """As many as there are to be: a template forks one after the other."""
    workers = status["workers"]
    states = {worker["state"] for worker in workers}
    return len(workers) >= max(1, status["scale"]) and not {"booting", "backoff"} & states


def run_family(
    config: Config, *, drain: bool = False, leashes: Sequence[int] = (), ends_here: bool = False
) -> int:
    """Make this process the parent of a family; `ends_here` where it does nothing after that.

    A leash is a descriptor that becomes readable when the family is to stop.
    """
    config.check_tasks(registry)
    config.check_extras()
    _refuse_threads()
    fill_streams()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe, a full disk
            stream.flush()
    configure(config.log.level, config.log.format, file=config.log.file)
    # Imported here: whoever only wants a Config or a running() does not pay for it.
    from jobvisor.jobs.store import load_driver  # noqa: PLC0415
    from jobvisor.supervisor.parent.first_look import FirstLook  # noqa: PLC0415

    load_driver(config.database.url, config.database.prefix)
    look = FirstLook(config, leashes, SYSTEM)
    try:
        # While that child looks: the largest import.
        from jobvisor.supervisor.parent.parent import Parent  # noqa: PLC0415

        parent = Parent(
            config, drain_and_stop=drain, leashes=leashes, ends_here=ends_here, look=look
        )
        return parent.run()
    finally:
        look.close()


def fill_streams() -> None:
    """Started with `2>&-` as some daemons are: the lock would get number 2, and the log its file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    # Python has None for a stream that was closed when it started.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _refuse_threads() -> None:
    others = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    # Libraries start threads that Python does not know (OpenBLAS does when numpy is imported).
    unknown = _count_threads() - len(others) - 1
    if unknown > 0:
        others.append(f"{unknown} started by a library, not by Python")
    if others or threading.current_thread() is not threading.main_thread():
        raise JobsError(
            f"the parent must be single-threaded, and this process also runs "
            f"{', '.join(others) or 'another thread'}; use Supervisor(config).running() "
            f"or .start(), which run beside it"
        )


def _count_threads() -> int:
    """How many threads this process has; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _end_of(script: int) -> list[int]:
    """A descriptor that tells of the script's own end: a process that it forked may hold the pipe open."""
    if not hasattr(os, "pidfd_open"):
        return []
    try:
        descriptor = os.pidfd_open(script)
    except OSError:
        return []
    if os.getppid() == script:
        return [descriptor]
    os.close(descriptor)  # the number may be a stranger's by now
    return []


def main() -> None:
    """The fresh interpreter of `start`: its configuration comes down the leash."""
    import pickle  # noqa: PLC0415 -- as in `start`

    leash = os.dup(0)
    # Buffered, so that it waits for all of a configuration that is longer than a pipe is.
    with os.fdopen(os.dup(0), "rb") as pipe:
        config, drain, script = pickle.load(pipe)  # noqa: S301 -- from the script that started us
    leashes = [leash, *_end_of(script)]
    try:
        code = run_family(config, drain=drain, leashes=leashes, ends_here=True)
    except JobsError as error:
        sys.stderr.write(f"jobvisor: {error}\n")
        code = error.exit_code
    sys.exit(code)
