"""`[web] hide`: values under these names are shown as ***, and come back where a copy leaves them so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobvisor.jobs.filter import Filter

__all__ = ["MASK", "Hiding"]

MASK = "***"

_SHOWN = ("result", "progress", "headers")

NamesOf = Callable[[str], Sequence[str]]
"""What the arguments by place of a task are called; empty where nobody knows."""


class Hiding:
    """Which values of a job are not for everybody's eyes.

    By the names of keys at any depth, in any case, and by the names of parameters; all arguments by place
    where nobody knows what they are called. It knows nothing of texts: what a task puts into an error, a
    log line or a unique key is shown.
    """

    def __init__(self, names: Iterable[str], parameters: NamesOf) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._parameters = parameters

    def shown(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A job's document as it may be seen: arguments, result, progress and headers are masked."""
        told = dict(document)
        if not self._names:
            return told
        for part in ("kwargs", *_SHOWN):
            if part in told:
                told[part] = self._masked(told[part])
        if "args" in told:
            told["args"] = self._masked_args(str(told.get("task")), told["args"])
        return told

    def searched(self, which: Filter) -> Filter:
        """The filter without a look into arguments: a hidden one could be guessed letter by letter."""
        return replace(which, in_arguments=False) if self._names else which

    def described(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """A task's document without the defaults of parameters that are hidden."""
        told = dict(task)
        arguments = told.get("arguments")
        if not isinstance(arguments, Mapping):
            return told
        properties = arguments.get("properties")
        if isinstance(properties, Mapping):
            shown = {
                name: {word: said for word, said in schema.items() if word != "default"}
                if self._hides(name) and isinstance(schema, Mapping)
                else schema
                for name, schema in properties.items()
            }
            told["arguments"] = {**arguments, "properties": shown}
        return told

    def kept(
        self,
        task: str,
        args: Any,
        kwargs: Any,
        *,
        stored_args: Any,
        stored_kwargs: Any,
    ) -> tuple[Any, Any]:
        """Arguments that somebody sends back, with the stored value wherever they still have a mask.

        All in the JSON form that documents have. A mask without anything behind it stays what it is.
        """
        if not self._names:
            return args, kwargs
        if isinstance(args, list) and isinstance(stored_args, list):
            hidden = self._hidden_places(task, max(len(args), len(stored_args)))
            args = [
                self._unmasked(given, stored_args[place], hidden=hidden[place])
                if place < len(stored_args)
                else given
                for place, given in enumerate(args)
            ]
        return args, self._unmasked(kwargs, stored_kwargs, hidden=False)

    def _hides(self, name: str) -> bool:
        return name.lstrip("$").lower() in self._names

    def _hidden_places(self, task: str, number: int) -> list[bool]:
        names = list(self._parameters(task))
        return [
            self._hides(names[min(place, len(names) - 1)]) if names else True
            for place in range(number)
        ]

    def _masked_args(self, task: str, args: Any) -> Any:
        if not isinstance(args, list):
            return self._masked(args)
        hidden = self._hidden_places(task, len(args))
        return [MASK if hidden[place] else self._masked(each) for place, each in enumerate(args)]

    def _masked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: MASK if self._hides(name) else self._masked(inner)
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._masked(inner) for inner in value]
        return value

    def _unmasked(self, given: Any, stored: Any, *, hidden: bool) -> Any:
        if hidden and given == MASK:
            return stored
        if isinstance(given, dict) and isinstance(stored, dict):
            return {
                name: self._unmasked(value, stored[name], hidden=self._hides(name))
                if name in stored
                else value
                for name, value in given.items()
            }
        if isinstance(given, list) and isinstance(stored, list):
            return [
                self._unmasked(value, stored[place], hidden=False) if place < len(stored) else value
                for place, value in enumerate(given)
            ]
        return given
