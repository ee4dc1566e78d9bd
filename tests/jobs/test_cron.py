"""When cron expressions tick, held against a walk along all minutes; and what is refused."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import available_timezones

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from jobvisor.errors import InvalidOption
from jobvisor.jobs.cron import cron_of
from jobvisor.jobs.zone import change_between, zone_of
from tests.jobs import walk
from tests.jobs.walk import Shown, minutes, ticks

TWENTY = [
    "Europe/Berlin",
    "Europe/London",
    "Europe/Chisinau",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Asuncion",
    "America/Nuuk",
    "Atlantic/Azores",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Africa/Juba",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Tehran",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Antarctica/Vostok",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Pacific/Norfolk",
]

EXPRESSIONS = [
    "30 2 * * *", "0 0 * * *", "15,45 1-3 * * *", "5 */1 * * *", "*/15 2 * * *", "*/10 0,1,2,3 * * *",
    "20 30 2 * * *", "*/30 30 1-3 * * *",
    "59 23 * * 6", "0 3 * * 0", "*/20 3 * * *", "*/30 0 * * *", "17 1-23/2 * * *", "0-59/20 0-3 * * *",
]  # fmt: skip

FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
EXAMPLES = int(os.environ.get("JOBVISOR_TEST_EXAMPLES", "40"))


def found(expression: str, zone: str, since: datetime, until: datetime) -> list[datetime]:
    cron, place = cron_of(expression), zone_of(zone)
    answers = []
    second = cron.next_after(int(since.timestamp()), place)
    while second is not None and second <= until.timestamp():
        answers.append(datetime.fromtimestamp(second, UTC))
        second = cron.next_after(second, place)
    return answers


@cache
def changes(zone: str) -> list[datetime]:
    """Every moment from 2020 to 2035 at which the clocks of a zone are changed, as a walk finds them."""
    return list(walk.changes(zone, FIRST, LAST))


def changes_known(zone: str) -> list[datetime]:
    """The same as the product finds them."""
    place, second, found = zone_of(zone), int(FIRST.timestamp()), list[datetime]()
    while (change := change_between(place, second, int(LAST.timestamp()))) is not None:
        found.append(datetime.fromtimestamp(change, UTC))
        second = change
    return found


def check_around(zone: str, change: datetime) -> None:
    since, until = change - timedelta(hours=6), change + timedelta(hours=6)
    shown: list[Shown] = list(minutes(zone, since, until))
    for expression in EXPRESSIONS:
        wanted = [tick for tick in ticks(expression, shown) if tick <= until]
        assert found(expression, zone, since, until) == wanted, (zone, change, expression)


@pytest.mark.parametrize("zone", TWENTY)
def test_around_each_change_of_a_clock_it_ticks_as_a_walk_along_all_minutes_says(zone: str) -> None:
    assert changes(zone) == changes_known(zone) != []
    for change in changes(zone):
        check_around(zone, change)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_around_each_change_of_every_clock_there_is() -> None:
    checked = 0
    for zone in sorted(available_timezones() - {"localtime", "Factory", "posixrules"}):
        assert changes(zone) == changes_known(zone)
        for change in changes(zone):
            check_around(zone, change)
            checked += 1
    print(f"{checked} changes, {len(EXPRESSIONS)} expressions around each")
    assert checked > 1_000


def field(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    # Of one number alone cronsim takes 10-10/5 for 10/5, and so do we.
    ends = st.tuples(number, number).filter(lambda both: both[0] != both[1])
    span = ends.map(lambda both: f"{min(both)}-{max(both)}")
    step = st.integers(1, high).map(lambda n: f"/{n}")
    item = st.one_of(
        number.map(str), span, st.builds(str.__add__, span, step), *map(st.just, names)
    )
    return st.one_of(
        st.just("*"),
        st.builds(str.__add__, st.just("*"), step),
        st.lists(item, min_size=1, max_size=3).map(",".join),
    )


EXPRESSION = st.one_of(
    st.builds(
        "{} {} {} {} {}".format,
        field(0, 59), field(0, 23), st.one_of(st.just("*"), field(1, 28), st.just("L"), st.just("LW")),
        st.just("*"), st.one_of(st.just("*"), field(0, 7, ("MON", "fri")), st.just("0L"), st.just("6#2")),
    ),
    st.builds("{} {} * * *".format, field(0, 59), field(0, 4)),
)  # fmt: skip


def comes(expression: str) -> bool:
    try:
        cron_of(expression)
    except InvalidOption as error:
        return "never comes" not in str(error)
    return True


@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(EXPRESSION, st.sampled_from(TWENTY), st.integers(0, 10_000), st.integers(-30, 12))
def test_any_expression_ticks_as_a_walk_along_all_minutes_says(
    expression: str, zone: str, which: int, hours: int
) -> None:
    assume(comes(expression))
    moments = changes(zone)
    since = moments[which % len(moments)] + timedelta(hours=hours)
    until = since + timedelta(hours=30)
    # What was shown for the first time is known from some hours before on.
    shown = list(minutes(zone, since - timedelta(hours=4), until))
    wanted = [tick for tick in ticks(expression, shown) if tick > since]
    assert found(expression, zone, since, until) == wanted
    assert cron_of(expression).words


SECOND = st.one_of(
    st.integers(0, 59).map(str),
    st.lists(st.integers(0, 59).map(str), min_size=2, max_size=3, unique=True).map(",".join),
    st.sampled_from(["*/20", "*/45", "10-50/15", "0-59/30", "5,50-59/5"]),
)


@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(SECOND, EXPRESSION, st.sampled_from(TWENTY), st.integers(0, 10_000), st.integers(-30, 6))
def test_any_expression_with_seconds_ticks_as_a_walk_along_all_minutes_says(
    second: str, expression: str, zone: str, which: int, hours: int
) -> None:
    assume(comes(expression))
    moments = changes(zone)
    since = moments[which % len(moments)] + timedelta(hours=hours)
    until = since + timedelta(hours=12)
    shown = list(minutes(zone, since - timedelta(hours=4), until))
    wanted = [tick for tick in ticks(f"{second} {expression}", shown) if since < tick <= until]
    assert found(f"{second} {expression}", zone, since, until) == wanted


@given(st.text(max_size=40) | st.text("0123456789*/,-#LW@ SUNmonJAN", max_size=30))
@settings(max_examples=EXAMPLES * 5, deadline=None)
def test_any_text_is_an_expression_or_refused_in_one_sentence(text: str) -> None:
    try:
        cron = cron_of(text)
    except InvalidOption as error:
        told = str(error)
    else:
        assert cron.next_after(0, UTC) is not None
        told = f"cron={cron.words}"
    assert told.startswith("cron=")
    assert "\n" not in told


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("expression", "day", "wanted"),
    [
        ("30 2 * * *", "2027-03-28", ["03:00+02:00"]),  # the short day: at the first moment there is
        ("30 2 * * *", "2027-10-31", ["02:30+02:00"]),  # the long one: once
        ("*/15 2 * * *", "2027-03-28", []),
        ("*/15 2 * * *", "2027-10-31",
         [f"02:{m}+0{o}:00" for o in (2, 1) for m in ("00", "15", "30", "45")]),
        ("20 30 2 * * *", "2027-03-28", ["03:00:20+02:00"]),  # a number of seconds is added
        ("20 30 2 * * *", "2027-10-31", ["02:30:20+02:00"]),
        ("20,40 30 2 * * *", "2027-03-28", []),  # a pattern of them follows real time
        ("*/30 30 2 * * *", "2027-10-31",
         [f"02:30:{s}+0{o}:00" for o in (2, 1) for s in ("00", "30")]),
        ("@daily", "2027-10-31", ["00:00+02:00"]),
    ],
)  # fmt: skip
def test_a_day_in_berlin_ticks(expression: str, day: str, wanted: list[str]) -> None:
    since = at(f"{day}T00:00+01:00") - timedelta(hours=1, seconds=1)
    answers = found(expression, "Europe/Berlin", since, since + timedelta(hours=24))
    assert answers == [at(f"{day}T{time}") for time in wanted]


def test_in_a_repeated_hour_the_next_tick_is_never_in_the_past() -> None:
    after = at("2027-10-31T02:10+01:00")  # for the second time
    (tick,) = found("45 2 * * *", "Europe/Berlin", after, after + timedelta(hours=30))
    assert tick == at("2027-11-01T02:45+01:00")


def test_words_for_times_are_expressions_and_reboot_is_none() -> None:
    assert cron_of("@Hourly").words == "At the start of every hour"
    with pytest.raises(InvalidOption, match="@reboot' is no time"):
        cron_of("@reboot")
    with pytest.raises(InvalidOption, match="@often' is no word for a time"):
        cron_of("@often")


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "61 * * * *", "* 24 * * *", "0 0 31 2 *", "0 0 */30 2 MON#2", "0 " * 200],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"^cron="):
        cron_of(text)


@pytest.mark.parametrize(
    "name",
    ["Europe/Berln", "", "../etc/passwd", "/etc/localtime", "localtime", "America", "right/UTC", 7],
)
def test_what_is_no_zone_is_refused(name: object) -> None:
    with pytest.raises(InvalidOption, match="is no time zone known here"):
        zone_of(name)
