"""A job that is asked for over HTTP, as the call that is enqueued; and a copy of one there is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from jobvisor.jobs.annals import KnownTask
from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.described import BY_FUNCTION, options_of, policy_of, signature_of
from jobvisor.jobs.errors import InvalidOption, UnknownTask, shown
from jobvisor.jobs.job import Job
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.registry import check_name, registry
from jobvisor.jobs.task import Call, Options
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.site import Site
from jobvisor.supervisor.web.values import check_tags, classes_in, typed_value

__all__ = ["Order", "call_of", "changed_arguments", "check_allowed"]

_MADE = {
    "unique": ("unique key", "a key or false"),
    "limit": ("limit", "a key"),
    "share": ("share", "a name"),
    "weight": ("weight", "a number"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants to have run; the options have the words of `using`."""

    task: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    typed: bool = False
    """Whether the arguments are in the form that documents of jobs have, with tags such as `$date`."""
    force: bool = False
    """Whether it may be of a task that no worker has told of."""


def check_allowed(site: Site, task: str) -> None:
    """Problem 403 where `allow_tasks` does not let this task be enqueued over HTTP."""
    if not any(fnmatchcase(task, pattern) for pattern in site.settings.allow_tasks):
        raise Problem(
            403,
            f"the task {shown(task)} is not to be enqueued over HTTP; add it to [web] allow_tasks",
            error="NotAllowed",
        )


def call_of(site: Site, order: Order) -> Call:
    """The call to enqueue: held against what is known of the task, with the task's own options.

    Raises Problem 403 where it is not allowed, UnknownTask, InvalidOption or PayloadError where it is wrong.
    """
    check_allowed(site, check_name(order.task))
    args, kwargs = order.args, order.kwargs
    if order.typed:
        args, kwargs = typed_value("args", args), typed_value("kwargs", kwargs)
    given = Options.of(_values(order.options))
    here = registry.get(order.task)
    if here is not None:
        return Call(here.name, tuple(args), kwargs, here.options.merged(given), here.function)
    known = site.directory.find(order.task)
    if known is None:
        _check_known(site, order)
        return Call(order.task, tuple(args), kwargs, given)
    _check_call(known, args, kwargs)
    _check_made(known, order)
    return Call(known.name, tuple(args), kwargs, _own_options(known).merged(given))


def changed_arguments(
    site: Site, job: Job, args: list[Any] | None, kwargs: dict[str, Any] | None
) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """The arguments of a copy; None and None where they are the job's own, which is copied as it stands.

    They come in the form that documents of jobs have. What is not given, or left as a mask, is the job's.
    What is sent is held against what is shown of the job, never against what a mask hides: the answer
    to a guess at that is the same, right or wrong.
    """
    told = job.as_json()
    if args is None and kwargs is None:
        return None, None
    if not isinstance(told["args"], list) or "$unreadable" in told["kwargs"]:
        raise InvalidOption(f"the arguments of job {job.id} cannot be read, so it cannot be copied")
    seen = site.hiding.shown(told)
    given = seen["args"] if args is None else args, seen["kwargs"] if kwargs is None else kwargs
    # As texts: to Python 1, 1.0 and true are equal.
    if json.dumps(given) == json.dumps((seen["args"], seen["kwargs"])):
        return None, None
    check_allowed(site, job.task)
    check_tags("arguments", list(given), classes_in([seen["args"], seen["kwargs"]]))
    kept = site.hiding.kept(
        job.task, *given, stored_args=told["args"], stored_kwargs=told["kwargs"]
    )
    classes = classes_in([told["args"], told["kwargs"]])
    found_args = typed_value("args", kept[0], classes=classes)
    found_kwargs = typed_value("kwargs", kept[1], classes=classes)
    known = site.directory.find(job.task)
    if known is not None:
        _check_call(known, found_args, found_kwargs)
    return found_args, found_kwargs


def _values(options: Mapping[str, Any]) -> Any:
    values = {name: value for name, value in options.items() if value is not None}
    if "retry" in values:
        values["retry"] = policy_of(values["retry"])
    for option in {"run_at", "expires_at"} & values.keys():
        values[option] = _moment(option, values[option])
    return values


def _moment(option: str, text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise InvalidOption(
            f"{option}={shown(text)} is not a time; write 2027-01-31T08:00+01:00 or 2027-01-31T07:00Z"
        ) from None
    if moment.utcoffset() is None:
        raise InvalidOption(f"{option}={shown(text)} has no timezone; add one, such as Z or +01:00")
    from_datetime(moment)
    return moment


def _check_known(site: Site, order: Order) -> None:
    names = list(site.directory.tasks())
    if names and not order.force:
        raise UnknownTask(
            f"no worker has told of a task {order.task!r}{did_you_mean(order.task, names)}; "
            "force enqueues it all the same"
        )


def _check_call(known: KnownTask, args: list[Any], kwargs: Mapping[str, Any]) -> None:
    signature = signature_of(known.told)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidOption(
            f"{known.name}{signature} cannot be called like this: {error}"
        ) from None


def _check_made(known: KnownTask, order: Order) -> None:
    """Without the key that a function makes, a job would run beside others, or before them."""
    told = known.told.get("options")
    options = told if isinstance(told, Mapping) else {}
    for name, (words, what) in _MADE.items():
        if options.get(name) == BY_FUNCTION and order.options.get(name) is None:
            raise InvalidOption(
                f"{order.task}: its {words} is made by a function, which cannot be called here; "
                f"send {name}, {what}"
            )


def _own_options(known: KnownTask) -> Options:
    """Those of the task; none where a release told them that has others."""
    try:
        return options_of(known.told.get("options") or {})
    except (InvalidOption, TypeError):
        return Options()
