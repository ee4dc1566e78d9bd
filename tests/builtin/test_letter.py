"""What is written of a letter: the headers that were asked for, and no line besides."""

from __future__ import annotations

from email.headerregistry import Address
from typing import Any

import pytest

from jobvisor.jobs.builtin.letter import letter
from jobvisor.jobs.errors import InvalidOption

INJECTED = "=?utf-8?q?a=0d=0aBcc:_x=0d=0a=0d=0abody?="


def made(**given: Any) -> bytes:
    said: dict[str, Any] = {
        "to": "ada@example.com", "cc": None, "bcc": None, "reply_to": None, "subject": "Hello",
        "text": "Hi", "html": None, "headers": None, "attachments": None,
    }  # fmt: skip
    sender = Address("Jobs", "jobs", "example.com")
    return letter(number="job-1", sender=sender, now_ms=0, **{**said, **given}).data


@pytest.mark.parametrize("text", [INJECTED, "a\u2028b", "a\x85b", "a\ud800b", "a\r\nBcc: x"])
@pytest.mark.parametrize("field", ["subject", "headers", "to", "cc", "reply_to"])
def test_no_value_brings_a_line_of_its_own(field: str, text: str) -> None:
    address = f'"{text}" <ada@example.com>'
    values: dict[str, Any] = {"subject": text, "headers": {"X-Note": text}}
    with pytest.raises(InvalidOption):
        made(**{field: values.get(field, address)})


def test_letters_of_any_language_are_written() -> None:
    assert b"Subject: =?utf-8?" in made(subject="Gr\xfc\xdfe")
