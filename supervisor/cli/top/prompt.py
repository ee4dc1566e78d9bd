"""What is asked at the foot of the screen: a line to be typed, or a yes."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len

__all__ = ["Line", "Yes"]

TYPED_MAX = 200


class Line:
    """A line that is being typed."""

    def __init__(self, label: str, text: str, done: Callable[[str], None]) -> None:
        self.label = label
        self.text = text
        self._done = done

    def press(self, key: str) -> bool:
        """Take a key; whether the line is at its end, taken or given up."""
        if key == "enter":
            self._done(self.text.strip())
            return True
        if key == "escape":
            return True
        if key == "backspace":
            self.text = self.text[:-1]
        elif key == "clear":
            self.text = ""
        elif len(key) == 1 and len(self.text) < TYPED_MAX:
            self.text += key
        return False

    def shown(self, width: int) -> str:
        """The line with what is typed at its end, whatever of it there is room for."""
        text = f"{self.label}{self.text}_"
        while cell_len(text) > width and text:
            text = text[1:]
        return text


class Yes:
    """A question that only `y` answers with yes."""

    def __init__(self, question: str, done: Callable[[], None]) -> None:
        self._question = question
        self._done = done

    def press(self, key: str) -> bool:
        """Take a key; whatever it is, the question is over."""
        if key in ("y", "Y"):
            self._done()
        return True

    def shown(self, width: int) -> str:
        """The question; what must be read of it is its end."""
        asked = f"{self._question}? y/n "
        if cell_len(asked) <= width:
            return asked
        end = "...? y/n "
        return self._question[: max(0, width - len(end))] + end
