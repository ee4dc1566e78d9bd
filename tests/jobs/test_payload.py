"""Values to JSON text and back."""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import re
import subprocess
import sys
from collections import OrderedDict, namedtuple
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobvisor.jobs import decode as decode_module
from jobvisor.jobs import encode as encode_module
from jobvisor.jobs.decode import decode
from jobvisor.jobs.encode import LIMIT, Unreadable, encode, encode_call, plain
from jobvisor.jobs.errors import PayloadError
from jobvisor.jobs.payload import Payload


class Color(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # noqa: PIE796 -- an alias


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    at: datetime
    inner: Any = None
    derived: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "derived", self.derived + "+")


@dataclass
class Needs:
    x: int
    secret: InitVar[str]


@dataclass(init=False)
class OwnInit:
    x: int

    def __init__(self) -> None:
        self.x = 1


class Undecorated(Point):
    pass


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 -- the old kind is refused too


class Text(str):
    __slots__ = ()


class Number(int):
    pass


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    TEXTS.map(lambda text: f"${text}"),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.uuids(),
    st.binary(),
    st.sampled_from([*Color, *Level, *Word, Right.READ, Right.READ | Right.WRITE, Right(0)]),
)
KEYS = st.one_of(TEXTS, TEXTS.map(lambda text: f"${text}"), TEXTS.map(lambda text: f"$${text}"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(KEYS, inner),
        st.frozensets(LEAVES),
        st.sets(LEAVES),
        st.builds(Point, st.integers(), st.integers(), st.lists(TEXTS)),
        st.builds(Frozen, st.datetimes(), inner),
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal and of equal types, all the way down: 1, 1.0 and True are not the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [spec.name for spec in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)


@given(VALUES)
def test_what_is_encoded_comes_back_the_same(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(VALUES)
def test_encoded_text_is_json_that_encodes_to_itself_again(value: Any) -> None:
    text = encode(value)
    assert json.loads(text) == plain(value)
    assert same(decode(encode(decode(text))), value)


@given(st.lists(VALUES), st.dictionaries(KEYS, VALUES))
def test_a_call_comes_back_the_same(args: list[Any], kwargs: dict[str, Any]) -> None:
    texts = encode_call(args, kwargs)
    assert same(decode(texts[0]), args)
    assert same(decode(texts[1]), kwargs)


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=True))
def test_a_datetime_keeps_its_zone_its_wall_clock_and_its_moment(moment: datetime) -> None:
    found = decode(encode(moment))
    assert found.replace(tzinfo=None) == moment.replace(tzinfo=None)
    assert found.utcoffset() == moment.utcoffset()
    assert str(found.tzinfo) == str(moment.tzinfo)


@given(st.text())
def test_any_text_is_decoded_or_refused(text: str) -> None:
    with suppress(PayloadError):  # anything else fails the test
        decode(text)


@given(VALUES.map(plain), st.sampled_from(["$date", "$tuple", "$enum", "$dataclass", "$x", "$$x"]))
def test_any_tag_with_any_body_is_decoded_or_refused(body: Any, tag: str) -> None:
    for lenient in (False, True):
        with suppress(PayloadError):  # anything else fails the test
            decode(json.dumps({tag: body}), lenient=lenient)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("caf\u00e9", '"caf\u00e9"'),
        (5, "5"),
        ([], "[]"),
        ({"$a": 1}, '{"$$a":1}'),
        ({2, 1}, '{"$set":[1,2]}'),
        (timedelta(days=-1), '{"$timedelta":[-1,0,0]}'),
        (Color.CRIMSON, '{"$enum":["tests.jobs.test_payload:Color","RED"]}'),
        (Point(1), '{"$dataclass":["tests.jobs.test_payload:Point",{"x":1,"y":0,"tags":[]}]}'),
        (datetime(2026, 1, 1, tzinfo=UTC), '{"$datetime":"2026-01-01T00:00:00+00:00"}'),
    ],
)
def test_the_stored_form_is_for_ever(value: Any, text: str) -> None:
    assert encode(value) == text


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: Any = 1
for _ in range(101):
    DEEP = [DEEP]
SHARED: Any = []
for _ in range(60):
    SHARED = [SHARED, SHARED]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), r"result: nan"),
        ([1, float("-inf")], r"result\[1\]: -inf"),
        (Decimal("NaN"), r"NaN"),
        (Decimal("Infinity"), r"Infinity"),
        ({"rows": ["a", "b\0"]}, r"result\.rows\[1\]: .*NUL"),
        ("\ud800", r"lone surrogate '\\ud800'"),
        ({"a b": {"\udfff": 1}}, r"""result\['a b'\]\['\\udfff'\]: .*surrogate"""),
        ({1: 2}, r"result\[1\]: the key 1 is an int"),
        ({Text("a"): 2}, r"the key 'a' is a Text"),
        (Text("a"), r"'a' is a Text, a subclass of str"),
        (Number(1), r"subclass of int"),
        (OrderedDict(), r"subclass of dict"),
        (Pair(1, 2), r"subclass of tuple"),
        (bytearray(b"x"), r"is a bytearray, which cannot be stored"),
        (object(), r"cannot be stored"),
        (Point, r"cannot be stored"),
        (Undecorated(1), r"cannot be stored"),
        (Point(1, tags=[5, object()]), r"result\.tags\[1\]: "),  # type: ignore[list-item]
        (Needs(1, "s"), r"InitVar 'secret'"),
        (OwnInit(), r"__init__ of its own"),
        (CYCLE, r"deeper than 100 levels"),
        (DEEP, r"deeper than 100 levels"),
        (SHARED, r"too large"),
        ([10**4_300], r"4300 digits"),
        (time(1, tzinfo=ZoneInfo("Europe/Berlin")), r"without a fixed offset"),
        ("x" * LIMIT, r"1048578 bytes of JSON, the limit is 1048576"),
        ("\u00e9" * (LIMIT // 2), r"1048578 bytes"),
    ],
)
def test_what_cannot_come_back_is_refused_with_its_place(value: Any, told: str) -> None:
    with pytest.raises(PayloadError, match=told):
        encode(value)


def test_a_class_of_a_function_is_refused() -> None:
    @dataclass
    class Local:
        x: int

    with pytest.raises(PayloadError, match="top of a module"):
        encode(Local(1))


def test_a_class_of_main_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import dataclass\n"
        "from jobvisor.jobs.encode import encode\n"
        "@dataclass\n"
        "class Here:\n"
        "    x: int\n"
        "encode(Here(1))\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, script], env={"PYTHONPATH": str(root)}, capture_output=True, check=False
    )
    assert b"__main__:Here cannot be found" in ended.stderr


def test_ints_up_to_4300_digits_come_back() -> None:
    for value in (10**4_300 - 1, -(10**4_300) + 1):
        assert decode(encode(value)) == value


def test_the_deepest_value_that_is_taken_comes_back() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    assert decode(encode(value)) == value


def test_the_largest_value_that_is_taken_comes_back() -> None:
    assert decode(encode("x" * (LIMIT - 2))) == "x" * (LIMIT - 2)


def test_the_limit_of_a_call_counts_all_its_arguments() -> None:
    with pytest.raises(PayloadError, match="the arguments: 26 bytes of JSON, the limit is 20"):
        encode_call(["x" * 8], {"b": "123456"}, 20)


def test_the_place_of_an_argument_is_named() -> None:
    with pytest.raises(PayloadError, match=r"^args\[0\]\.rows\[3\]: nan"):
        encode_call([{"rows": [1, 2, 3, float("nan")]}], {})
    with pytest.raises(PayloadError, match=r"^kwargs\.subject: "):
        encode_call([], {"subject": object()})


def test_a_field_that_got_a_default_may_be_missing_in_stored_text() -> None:
    assert decode('{"$dataclass":["tests.jobs.test_payload:Point",{"x":1}]}') == Point(1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "NaN",
        "[Infinity]",
        '{"$unknown": 1}',
        '{"$date": "tomorrow"}',
        '{"$datetime": 5}',
        '{"$dataclass": ["tests.jobs.test_payload:Point", {"z": 1}]}',
        '{"$dataclass": ["tests.jobs.test_payload:Point", {}]}',
        '{"$dataclass": ["os:system", {}]}',
        '{"$dataclass": ["builtins:dict", {}]}',
        '{"$enum": ["builtins:dict", "x"]}',
        '{"$enum": ["tests.jobs.test_payload:Color", "BLUE"]}',
        '{"$enum": ["no.such.module:Color", "RED"]}',
        '{"$codec": "x"}',
        "[" * 200_000,
    ],
)
def test_stored_text_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        decode(text)


def test_white_space_and_strangers_keys_are_read() -> None:
    assert decode(' {"$ref": 1, "a": 2}\n') == {"$ref": 1, "a": 2}
    assert decode(" [1, 2] ") == [1, 2]


def test_a_lenient_decode_imports_nothing_and_loses_nothing() -> None:
    text = '[{"$dataclass":["no.such:Thing",{"at":{"$date":"2026-11-22"}}]},{"$tuple":[1]}]'
    found = decode(text, lenient=True)
    assert found == [Unreadable("$dataclass", ["no.such:Thing", {"at": date(2026, 11, 22)}]), (1,)]
    assert encode(found) == text
    assert "antigravity" not in sys.modules
    decode('{"$enum":["antigravity:x","y"]}', lenient=True)
    assert "antigravity" not in sys.modules


def test_a_lenient_decode_reads_classes_that_are_loaded() -> None:
    assert decode(encode([Point(1), Color.RED]), lenient=True) == [Point(1), Color.RED]


class Reversed:
    def encode(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()[::-1]

    def decode(self, text: str) -> str:
        return base64.b64decode(text[::-1]).decode()


@given(VALUES)
def test_what_goes_through_a_codec_comes_back_and_is_not_legible(value: Any) -> None:
    payload = Payload(Reversed())
    text = payload.encode(value)
    assert list(json.loads(text)) == ["$codec"]
    assert same(payload.decode(text), value)


def test_a_call_goes_through_the_codec_in_both_parts() -> None:
    payload = Payload(Reversed())
    texts = payload.encode_call((1,), {"a": b"x"})
    assert [payload.decode(text) for text in texts] == [[1], {"a": b"x"}]
    assert all(text.startswith('{"$codec"') for text in texts)


def test_text_from_before_the_codec_is_still_read() -> None:
    assert Payload(Reversed()).decode(encode((1, 2))) == (1, 2)


def test_without_the_codec_coded_text_is_refused_or_left_unread() -> None:
    text = Payload(Reversed()).encode("secret")
    with pytest.raises(PayloadError, match="same codec"):
        decode(text)
    assert isinstance(decode(text, lenient=True), Unreadable)


class Failing:
    def encode(self, text: str) -> str:
        raise KeyError(text)

    def decode(self, text: str) -> str:
        raise KeyError(text)


class Wrong(Failing):
    def encode(self, text: str) -> str:
        del text
        return b"bytes"  # type: ignore[return-value]


@pytest.mark.parametrize("codec", [Failing(), Wrong()])
def test_a_codec_that_fails_is_a_payload_error(codec: Failing) -> None:
    with pytest.raises(PayloadError, match="codec"):
        Payload(codec).encode(1)
    with pytest.raises(PayloadError, match="codec"):
        Payload(codec).decode('{"$codec":"x"}')


class Mute(Exception):  # noqa: N818 -- of some library
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Muted(Failing):
    def encode(self, text: str) -> str:
        raise Mute(text)


def test_a_codec_whose_error_cannot_be_told_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match=r"args: the codec failed: Mute$"):
        Payload(Muted()).encode_call([1], {})


class Undecided(Reversed):
    def decode(self, text: str) -> str:
        return super().decode(text).encode()  # type: ignore[return-value]


def test_a_codec_that_gives_bytes_back_is_a_payload_error_that_says_so() -> None:
    payload = Payload(Undecided())
    with pytest.raises(PayloadError, match=r"as bytes; its decode must return str"):
        payload.decode(payload.encode("secret"))


class Nowhere(tzinfo):
    def utcoffset(self, _moment: datetime | None) -> timedelta:
        raise RuntimeError("no such place")

    dst = utcoffset

    def tzname(self, _moment: datetime | None) -> str:
        return "nowhere"


def test_a_value_whose_own_code_raises_is_refused() -> None:
    moment = datetime(2026, 11, 22, tzinfo=Nowhere())
    with pytest.raises(PayloadError, match=r"^args: cannot be read: RuntimeError: 'no such place'"):
        Payload().encode_call([moment], {})


def test_a_class_of_a_module_that_exits_at_its_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaves_at_import.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PayloadError, match="needs the class leaves_at_import:Point: SystemExit"):
        decode('{"$dataclass":["leaves_at_import:Point",{}]}')


def test_the_limit_counts_for_the_coded_text_too() -> None:
    with pytest.raises(PayloadError, match="coded"):
        Payload(Reversed(), limit=100).encode("x" * 90)


def test_a_uuid_and_bytes_are_of_their_types_again() -> None:
    value = [UUID(int=5), b"\0\xff"]
    assert same(decode(encode(value)), value)


def test_a_path_is_one_again_and_a_name_that_is_no_text_is_refused() -> None:
    assert same(decode(encode([Path("a/b"), Path("/")])), [Path("a/b"), Path("/")])
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode(Path("\udcff"))


def test_every_tag_stands_in_the_docstring_as_it_is_written() -> None:
    told = encode_module.__doc__ or ""
    shown = [json.loads(text) for text in re.findall(r"\{\"\$.*?\}(?=  |\n|;|`)", told)]
    assert {key for value in shown for key in value if not key.startswith("$$")} == set(
        decode_module._READERS
    )
    for value in shown:
        if not value.keys() & decode_module._FOREIGN:
            decoded = decode(json.dumps(value))
            assert json.loads(encode(decoded)) == value


@pytest.mark.parametrize(
    "path",
    [Path("a/b.txt"), Path("/"), PurePosixPath("x/../y"), PureWindowsPath("C:\\\\data\\\\ü")],
    ids=repr,
)
def test_a_path_comes_back_as_the_path_it_was(path: PurePath) -> None:
    found = decode(encode({"at": [path]}))
    assert found == {"at": [path]}
    assert type(found["at"][0]) is type(path)
