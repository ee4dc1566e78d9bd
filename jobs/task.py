"""A function plus the options it is run with, and one call of it.

A Task is what the decorator leaves in place of the function; a Call is a task with its arguments,
not yet stored. Every option is judged here, where it is written, and never in a worker.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.encode import encode_call
from jobvisor.jobs.errors import ConfigError, InvalidOption, shown
from jobvisor.jobs.headers import encode_headers
from jobvisor.jobs.job import Job, NewJob, Terms
from jobvisor.jobs.keep import Keep, encode_keep
from jobvisor.jobs.limit import check_limit_key
from jobvisor.jobs.nearest import suggestion
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.retry import DEFAULT, Answer, Policy, as_policy, policy_json
from jobvisor.jobs.running import sent_along
from jobvisor.jobs.share import NO_SHARE, Share, Weight, check_share, check_weight, share_of
from jobvisor.jobs.uniqueness import (
    OnConflict,
    UniqueFor,
    check_on_conflict,
    check_together,
    check_unique_for,
    check_wait,
    keyed_terms,
)
from jobvisor.jobs.units import Duration, duration_ms, size_bytes

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
R_co = TypeVar("R_co", covariant=True)

Unique = str | bool | Callable[..., str]
LimitBy = str | Callable[..., str | None]

NAME_MAX = 400  # characters; a unique key that is made from it stays below KEY_MAX
KEY_MAX = 500
QUEUE_MAX = 100
RETRIES_MAX = 1_000_000
MEMORY_MIN = 1 << 20  # less no process has: it was meant in another unit
PRIORITY_MIN, PRIORITY_MAX = -32_768, 32_767  # a smallint in PostgreSQL

_QUEUE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")


class Injected:
    """What the worker itself passes as the first parameter; context.Context is the one.

    It stands here, empty, so that a task can be typed without importing the context, which is
    further down the map.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Defaults:
    """The options of tasks that do not say otherwise: `[defaults]` of config.toml."""

    queue: str = "default"
    retries: int = 3
    timeout_ms: int = 0
    """0 for no limit."""


class OptionValues(TypedDict, total=False):
    """The options as a person writes them, for the decorator and for `using`.

    `expires_in` and `deadline` count from the moment the job is first due. One that no run may begin any
    more (`expires_in`, or the moment `expires_at`) is cancelled, and does not run too late. One that is not
    done by its `deadline`, with all its attempts and the time between them, has failed; `timeout` is of each.
    `unique_for` says how long the `unique` key is held ("unfinished", "kept", or so long from the enqueue
    on), `on_conflict` what is done where it is: "return" or "raise", "replace" what waits, or "debounce" it,
    by `delay` and `max_wait`.
    `keep` is how long the job is kept after its end: "1h", "forever", or by the state of that,
    {"succeeded": "1h", "failed": "90d"}; what is not said is as the queue or `[retention]` has it.
    """

    queue: str
    priority: int
    retries: int
    retry: Policy | Duration | Answer
    timeout: Duration
    memory: str | int
    unique: Unique
    unique_for: UniqueFor
    on_conflict: OnConflict
    delay: Duration
    max_wait: Duration
    limit: LimitBy
    run_in: Duration
    run_at: datetime
    expires_in: Duration
    expires_at: datetime
    deadline: Duration
    keep: Keep
    share: Share
    weight: Weight
    headers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a task or a call, judged; None means: as the task, or the defaults, say."""

    queue: str | None = None
    priority: int | None = None
    retries: int | None = None
    """Attempts after the first."""
    retry: Policy | None = None
    timeout_ms: int | None = None
    memory_bytes: int | None = None
    unique: Unique | None = None
    """A key; True for the name with a digest of the arguments; a function of the arguments."""
    unique_for: str | int | None = None
    """How long the key is held: a word, or milliseconds."""
    on_conflict: str | None = None
    """What is done where it is held."""
    delay_ms: int | None = None
    max_wait_ms: int | None = None
    limit: LimitBy | None = None
    """The key of a limit, or a function of the arguments that returns one, or None for no limit."""
    run_in_ms: int | None = None
    run_at_ms: int | None = None
    expires_in_ms: int | None = None
    expires_at_ms: int | None = None
    deadline_ms: int | None = None
    keep: str | None = None
    """How long it is kept after its end, as the JSON of milliseconds by the state of that."""
    share: Share | None = None
    """On whose behalf it runs in a fair queue, or a function of the arguments."""
    weight: Weight | None = None
    """Of that share, or a function of the arguments."""
    headers: str | None = None
    """As the JSON of an object."""

    @classmethod
    def of(cls, values: OptionValues) -> Options:
        """Judge what a person wrote; an InvalidOption names the option, its value and the remedy.

        >>> Options.of({"queue": "mail", "timeout": "30s"}).timeout_ms
        30000
        """
        return _options(values)

    def merged(self, other: Options) -> Options:
        """These options with what the other one says laid over them.

        >>> Options(queue="mail", retries=1).merged(Options(retries=0))
        Options(queue='mail', retries=0)
        """
        if other is NO_OPTIONS:
            return self
        said = {
            name: value for name in _OPTION_FIELDS if (value := getattr(other, name)) is not None
        }
        if "run_in_ms" in said or "run_at_ms" in said:  # two ways to say when: the later one counts
            said = {"run_in_ms": None, "run_at_ms": None} | said
        if "expires_in_ms" in said or "expires_at_ms" in said:
            said = {"expires_in_ms": None, "expires_at_ms": None} | said
        if said.get("on_conflict", "debounce") != "debounce":  # these are of a debounced job alone
            said = {"delay_ms": None, "max_wait_ms": None} | said
        return Options(**({name: getattr(self, name) for name in _OPTION_FIELDS} | said))

    def __repr__(self) -> str:
        said = ((name, getattr(self, name)) for name in _OPTION_FIELDS)
        return f"Options({', '.join(f'{n}={value!r}' for n, value in said if value is not None)})"


NO_TERMS = Terms()
_OPTION_FIELDS = tuple(one.name for one in fields(Options))
NO_OPTIONS = Options()


def _options(values: OptionValues) -> Options:
    if not values:
        return NO_OPTIONS
    if values.get("run_in") is not None and values.get("run_at") is not None:
        raise InvalidOption("run_in and run_at both say when; give one of them")
    if values.get("expires_in") is not None and values.get("expires_at") is not None:
        raise InvalidOption("expires_in and expires_at both say until when; give one of them")
    judged: dict[str, Any] = {}
    for option, value in values.items():
        if option not in _JUDGES:
            near = suggestion(option, _JUDGES)
            raise InvalidOption(f"{option}={value!r} is not an option; {near}")
        if value is not None:
            name, judge = _JUDGES[option]
            judged[name] = judge(option, value)
    return Options(**judged)


def check_queue(option: str, value: Any) -> str:
    """A queue's name, or an InvalidOption that begins with the option's name.

    >>> check_queue("queue", "mail.fast")
    'mail.fast'
    """
    if value == "*":
        raise InvalidOption(f'{option}="*" names no queue: a job is in one queue; write its name')
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= QUEUE_MAX
        or set(value) - _QUEUE_CHARACTERS
    ):
        raise InvalidOption(
            f"{option}={shown(value)} is no queue name: "
            f"write 1 to {QUEUE_MAX} letters, digits and _ . : -"
        )
    return str(value)


def check_number(option: str, value: Any, low: int, high: int) -> int:
    """An int in a range, or an InvalidOption that begins with the option's name.

    >>> check_number("retries", 3, 0, 10)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(f"{option}={shown(value)} must be a whole number from {low} to {high}")
    return int(value)


def _check_duration(option: str, value: Any) -> int:
    try:
        return duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def _check_expiry(option: str, value: Any) -> int:
    ms = _check_duration(option, value)
    if ms == 0:
        raise InvalidOption(f"{option}={value!r} would never run; leave it out for none")
    return ms


def _check_size(option: str, value: Any) -> int:
    try:
        size = size_bytes(value)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error
    if 0 < size < MEMORY_MIN:
        raise InvalidOption(
            f'{option}={shown(value)} is less than any process needs; write its unit, such as "512MB"'
        )
    return size


def _check_moment(option: str, value: Any) -> int:
    if not isinstance(value, datetime):
        raise InvalidOption(f"{option}={shown(value)} must be a datetime with a timezone")
    try:
        return from_datetime(value)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: {error}") from error


def _check_unique(option: str, value: Any) -> Unique:
    if isinstance(value, str):
        return check_key(option, value)
    if isinstance(value, bool) or callable(value):
        return value  # type: ignore[no-any-return]  # callable() tells mypy nothing of the result
    raise InvalidOption(
        f"{option}={shown(value)} must be a key, True (one job for the same arguments), "
        f"or a function of the arguments that returns a key"
    )


def _check_limit(option: str, value: Any) -> LimitBy:
    if callable(value):
        return value  # type: ignore[no-any-return]  # callable() tells mypy nothing of the result
    return check_limit_key(option, value)


def check_key(option: str, key: Any) -> str:
    """A unique key, or an InvalidOption that begins with the option's name."""
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_MAX:
        raise InvalidOption(f"{option}={shown(key)} must be a str of 1 to {KEY_MAX} characters")
    if "\0" in key or not _is_text(key):
        raise InvalidOption(f"{option}={shown(key)} contains NUL or a lone surrogate; leave it out")
    return str(key)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_JUDGES: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "queue": ("queue", check_queue),
    "priority": (
        "priority",
        lambda option, value: check_number(option, value, PRIORITY_MIN, PRIORITY_MAX),
    ),
    "retries": ("retries", lambda option, value: check_number(option, value, 0, RETRIES_MAX)),
    "retry": ("retry", lambda _option, value: as_policy(value)),
    "timeout": ("timeout_ms", _check_duration),
    "memory": ("memory_bytes", _check_size),
    "unique": ("unique", _check_unique),
    "unique_for": ("unique_for", check_unique_for),
    "on_conflict": ("on_conflict", check_on_conflict),
    "delay": ("delay_ms", check_wait),
    "max_wait": ("max_wait_ms", check_wait),
    "limit": ("limit", _check_limit),
    "run_in": ("run_in_ms", _check_duration),
    "run_at": ("run_at_ms", _check_moment),
    "expires_in": ("expires_in_ms", _check_expiry),
    "expires_at": ("expires_at_ms", _check_moment),
    "deadline": ("deadline_ms", _check_expiry),
    "keep": ("keep", encode_keep),
    "share": ("share", check_share),
    "weight": ("weight", check_weight),
    "headers": ("headers", encode_headers),
}


class Enqueuer(Protocol):
    """What a task needs of a client."""

    def enqueue(self, call: Call[T], /) -> Job[T]:
        """Store the call."""


def _no_client() -> Enqueuer:
    raise ConfigError("no client is known yet: `import jobvisor` before the first enqueue")


if TYPE_CHECKING:  # with the default that job.py explains
    from typing_extensions import TypeVar as DefaultingTypeVar

    CallR_co = DefaultingTypeVar("CallR_co", covariant=True, default=Any)
else:
    CallR_co = TypeVar("CallR_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[CallR_co]):
    """One requested call of a task, not stored yet; `Call[int]` is one of a task that returns int."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Options = NO_OPTIONS
    function: Callable[..., Any] | None = None
    """None where only the task's name is known: then nothing checks the arguments."""

    def new_job(self, defaults: Defaults, payload: Payload, home: str = "") -> NewJob:
        """The row to store. A call that the function would not accept is an InvalidOption here.

        With it go the headers that are set here, and the id of the job that makes this call, where
        that one is from the same tables: `home` names those that this one goes into.
        """
        options = self.options
        if self.function is not None and not fits(self.function, self.args, self.kwargs):
            self._bound(self.function)
        args, kwargs = payload.encode_call(self.args, self.kwargs)
        headers, parent = sent_along(options.headers, home)
        if options is NO_OPTIONS:
            return NewJob(
                self.task, args, kwargs, defaults.queue, 0, None, 0, defaults.retries + 1, None,
                defaults.timeout_ms, 0, None, None, headers, parent,
            )  # fmt: skip
        retries = defaults.retries if options.retries is None else options.retries
        timeout = defaults.timeout_ms if options.timeout_ms is None else options.timeout_ms
        policy = options.retry
        keyed = keyed_terms(options)
        run_in = options.run_in_ms or 0
        if keyed.get("debounce_ms") is not None:
            run_in = options.delay_ms or 0
        return NewJob(
            task=self.task,
            args=args,
            kwargs=kwargs,
            queue=options.queue or defaults.queue,
            priority=options.priority or 0,
            run_at_ms=options.run_at_ms,
            run_in_ms=run_in,
            attempts_max=retries + 1,
            policy=None if policy is None or policy == DEFAULT else policy_json(policy),
            timeout_ms=timeout,
            memory_bytes=options.memory_bytes or 0,
            unique_key=self._unique_key(),
            expires_in_ms=options.expires_in_ms,
            headers=headers,
            parent=parent,
            terms=self._terms(keyed),
        )

    def _terms(self, keyed: Mapping[str, Any]) -> Terms | None:
        options = self.options
        limit = options.limit
        key = limit(*self.args, **self.kwargs) if callable(limit) else limit
        shared = (
            share_of(options.share, options.weight, self.args, self.kwargs)
            if options.share is not None
            else NO_SHARE
        )
        terms = Terms(
            limit_key=None if key is None else check_limit_key("limit", key),
            expires_at_ms=options.expires_at_ms,
            deadline_in_ms=options.deadline_ms,
            keep=options.keep,
            **shared,
            **keyed,
        )
        return None if terms == NO_TERMS else terms

    def _bound(self, function: Callable[..., Any]) -> inspect.BoundArguments | None:
        signature = parameters_of(function)
        if signature is None:
            return None
        try:
            return signature.bind(*self.args, **self.kwargs)
        except TypeError as error:
            raise InvalidOption(
                f"{self.task}{signature} cannot be called like this: {error}"
            ) from None

    def _unique_key(self) -> str | None:
        unique = self.options.unique
        if unique is None or unique is False:
            return None
        if isinstance(unique, str):
            return unique
        if unique is True:
            return self.same_key()
        return check_key("unique", unique(*self.args, **self.kwargs))

    def same_key(self) -> str:
        """The key of `unique=True`: the same for f(1) and f(n=1), any order of keywords, and any codec."""
        import hashlib  # noqa: PLC0415 -- it loads OpenSSL (3 ms), and few calls have such a key

        bound = None if self.function is None else self._bound(self.function)
        args, kwargs = (self.args, self.kwargs) if bound is None else (bound.args, bound.kwargs)
        texts = encode_call(args, kwargs, sys.maxsize)
        same = json.dumps([json.loads(text) for text in texts], sort_keys=True)
        digest = hashlib.blake2b(same.encode(), digest_size=16).hexdigest()
        return f"{self.task}:{digest}"


class Task(Generic[P, R_co]):
    """A function that can also be enqueued; calling it stays a plain call."""

    default_client: ClassVar[Callable[[], Enqueuer]] = _no_client
    """Where `enqueue` takes its client from. jobs/client.py puts itself here when it is imported:
    the client knows tasks, a task cannot know the client without a circle of imports."""

    name: str
    function: Callable[..., R_co]
    options: Options
    wants_context: bool
    """Whether the worker passes a Context as the first argument."""

    def __init__(
        self, name: str, function: Callable[..., R_co], options: Options = NO_OPTIONS
    ) -> None:
        check_together(options)
        update_wrapper(self, function)
        self.name = name
        self.function = function
        self.options = options
        self.wants_context = wants_context(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function here and now."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @overload
    def call(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[T]: ...
    @overload
    def call(self: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> Call[T]: ...
    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[Any]:
        """This call as a value, for `enqueue_many`.

        >>> from jobvisor import Client, task
        >>> @task(name="docs:send")
        ... def send(to: str) -> int: ...
        >>> with Client("memory://") as client:
        ...     client.enqueue_many(
        ...         send.using(unique=f"welcome:{to}").call(to) for to in ("a@b.c", "d@e.f", "a@b.c")
        ...     )
        [1, 2, 1]
        """
        return Call(self.name, args, kwargs, self.options, self.function)

    def using(self, **values: Unpack[OptionValues]) -> Task[P, R_co]:
        """The same task with other options, for one call or for many.

        InvalidOption where an option or its value is unknown.
        """
        return Task(self.name, self.function, self.options.merged(Options.of(values)))

    @overload
    def enqueue(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    def enqueue(self: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[Any]:
        """Store this call with the default client; once this returns, the job cannot be lost."""
        return Task.default_client().enqueue(self.call(*args, **kwargs))

    @overload
    async def aenqueue(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    async def aenqueue(self: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[Any]:
        """`enqueue` for code in an event loop: `job = await send.aenqueue("a@b.c")`.

        It runs in a thread of the loop's own pool, since the commit takes milliseconds of disk. When
        the awaiting code is cancelled the job may be stored all the same.
        """
        import asyncio  # noqa: PLC0415 -- 30 ms that a program without a loop need not pay

        return await asyncio.to_thread(self.enqueue, *args, **kwargs)


class ContextTask(Task[P, R_co], Generic[C, P, R_co]):
    """A task whose first parameter is the Context: the worker passes it, not who enqueues.

    Only a plain call has to bring one, such as jobvisor.testing makes.
    """

    def __call__(self, context: C, /, *args: P.args, **kwargs: P.kwargs) -> R_co:  # type: ignore[override]
        """Call the function here and now."""
        return self.function(context, *args, **kwargs)


@lru_cache(maxsize=1_024)
def _parameters_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins tell nothing
        return None
    if wants_context(function):
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    return signature.replace(return_annotation=inspect.Signature.empty)


def parameters_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """What the caller of `enqueue` passes: the signature without an injected Context.

    >>> parameters_of(lambda to, *, subject: None)
    <Signature (to, *, subject)>
    """
    try:
        return _parameters_of(function)
    except TypeError:  # a callable object that cannot be hashed
        return _parameters_of.__wrapped__(function)


class _Shape(NamedTuple):
    """What a signature takes, for the calls that are common."""

    names: tuple[str, ...]
    """Those that may be given by place or by name, in order."""
    required: int
    """So many of them, the first ones, have no default."""
    more: bool
    """Whether it takes any number of others by place."""
    only_by_name: frozenset[str]
    named_required: frozenset[str]


@lru_cache(maxsize=1_024)
def _shape_of(function: Callable[..., Any]) -> _Shape | None:
    signature = parameters_of(function)
    if signature is None:
        return None
    parameters = signature.parameters.values()
    kinds = {each.kind for each in parameters}
    if inspect.Parameter.POSITIONAL_ONLY in kinds or inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    plain = [each for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    named = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    empty = inspect.Parameter.empty
    return _Shape(
        tuple(each.name for each in plain),
        sum(each.default is empty for each in plain),
        inspect.Parameter.VAR_POSITIONAL in kinds,
        frozenset(each.name for each in named),
        frozenset(each.name for each in named if each.default is empty),
    )


def fits(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is one that the function takes for certain: a tenth of the work of binding it.

    False where that is not certain: then the signature says what is wrong, if anything is.

    >>> fits(lambda to, *, subject: None, ("a@b.c",), {"subject": "x"})
    True
    """
    try:
        shape = _shape_of(function)
    except TypeError:  # a callable object that cannot be hashed
        return False
    given = len(args)
    if shape is None or (given > len(shape.names) and not shape.more):
        return False
    if not kwargs:
        return given >= shape.required and not shape.named_required
    free = shape.names[given:]
    return (
        all(name in shape.only_by_name or name in free for name in kwargs)
        and all(name in kwargs for name in shape.names[given : shape.required])
        and all(name in kwargs for name in shape.named_required)
    )


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def wants_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter is annotated Context.

    The annotation may be a string that cannot be resolved (imported for type checkers only), so
    then its name decides. A class of the user that is also called Context is not ours.
    """
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    first = next(iter(parameters), None)
    if first is None or first.kind not in _POSITIONAL:
        return False
    annotation = first.annotation
    if isinstance(annotation, str):
        return _names_context(annotation.strip("'\" "), function)
    return _is_context(annotation)


#: Where the class is defined: this file stands before that one and cannot import it.
_CONTEXT = "jobvisor.jobs.context.Context"


def _names_context(annotation: str, function: Callable[..., Any]) -> bool:
    found: Any = getattr(inspect.unwrap(function), "__globals__", {})
    for step, name in enumerate(annotation.split(".")):
        found = found.get(name) if step == 0 else getattr(found, name, None)
        if found is None:
            return annotation in {"Context", "jobvisor.Context", _CONTEXT}
    return _is_context(found)


def _is_context(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        issubclass(annotation, Injected)
        or f"{annotation.__module__}.{annotation.__qualname__}" == _CONTEXT
    )
