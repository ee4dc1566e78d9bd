"""What is kept of the last looks: bounded, merged to the last state of each job, and numbered."""

from __future__ import annotations

from jobvisor.supervisor.web.events.bulletin import MADE_MOST, Bulletin
from jobvisor.supervisor.web.events.message import Told
from jobvisor.supervisor.web.events.ring import Ring
from jobvisor.supervisor.web.events.wanted import Wanted


def told(job: int, text: str = "{}") -> Told:
    return Told(job, text)


def texts(ring: Ring, number: int) -> list[str]:
    return [each.text for each in ring.since(number).told]


def test_what_came_after_a_number_has_each_job_once_with_its_last_state() -> None:
    ring = Ring()
    ring.add([told(1, "pending"), told(2, "pending")])
    ring.add([told(1, "running")])
    ring.add([told(3, "pending"), told(1, "succeeded")])
    assert texts(ring, 0) == ["pending", "pending", "succeeded"]
    assert texts(ring, 2) == ["pending", "succeeded"]
    assert texts(ring, 3) == []


def test_what_came_before_a_reset_is_not_told_after_it() -> None:
    ring = Ring()
    ring.add([told(1)])
    ring.add([told(2)], reset="more than could be told")
    ring.add([told(3)])
    since = ring.since(0)
    assert since.reset == "more than could be told"
    assert [each.job for each in since.told] == [2, 3]
    assert ring.since(2).reset is None


def test_the_ring_is_bounded_by_looks_and_by_text_and_says_what_it_does_not_reach() -> None:
    by_looks, by_text = Ring(looks_most=3), Ring(text_most=10)
    for number in range(5):
        by_looks.add([told(number)])
        by_text.add([told(number, "xxxx")])
    assert not by_looks.reaches(1)
    assert by_looks.reaches(2)
    assert not by_text.reaches(2)
    assert by_text.reaches(3)
    assert not by_text.reaches(6)


def test_one_look_larger_than_the_ring_is_kept_alone() -> None:
    ring = Ring(text_most=10)
    ring.add([told(1)])
    ring.add([told(2, "x" * 100)])
    assert ring.reaches(1)
    assert not ring.reaches(0)


def test_a_job_has_changed_since_a_number_if_it_was_told_or_if_nobody_knows() -> None:
    ring = Ring(looks_most=3)
    ring.add([told(1)])
    ring.add([told(2)])
    assert ring.has_changed(1, 0)
    assert not ring.has_changed(1, 1)
    ring.add(reset="a gap")
    assert ring.has_changed(1, 2)
    ring.add([told(9)])
    assert ring.has_changed(1, 0)  # that far it does not reach


def test_a_message_is_made_once_for_all_who_want_the_same() -> None:
    bulletin = Bulletin()
    bulletin.ring.add([told(1, '{"id":1}')])
    first = bulletin.jobs_after(0, Wanted(), None)
    assert bulletin.jobs_after(0, Wanted(), None) is first
    assert bulletin.jobs_after(0, Wanted(jobs=frozenset([2])), None) == b""


def test_a_place_of_another_process_or_of_nobody_is_none_of_ours() -> None:
    bulletin, other = Bulletin(), Bulletin()
    bulletin.ring.add([told(1)])
    assert bulletin.number(bulletin.place(1)) == 1
    assert bulletin.number(bulletin.place(2)) is None
    strange = (other.place(1), "", None, "-", "x-1", bulletin.place(1) + "0" * 30, "\ud800-1")
    assert [bulletin.number(place) for place in strange] == [None] * len(strange)


def test_messages_that_are_kept_for_others_are_bounded() -> None:
    bulletin = Bulletin()
    bulletin.ring.add([told(1, f'"{"x" * 1_000_000}"')])
    for number in range(30):
        wanted = Wanted(queues=frozenset({"q"}), tasks=frozenset({str(number)}))
        bulletin.jobs_after(0, wanted, None)
    assert sum(map(len, bulletin._made.values())) <= MADE_MOST
