"""What lacks, as arithmetic: stretches of the log taken apart and put together."""

from __future__ import annotations

from cluster.history.gaps import Gap, Place, between, merged, subtract, within
from cluster.history.lacks import Lacks
from cluster.history.store import Standing

GAP = Gap(10, 0, 20, 500)


def test_a_piece_shortens_a_gap_closes_it_or_splits_it() -> None:
    assert subtract(GAP, Place(10), Place(15, 7)) == [Gap(15, 7, 20, 500)]
    assert subtract(GAP, Place(10), Place(21)) == []
    assert subtract(GAP, Place(14), Place(21)) == [Gap(10, 0, 13, 500)]
    assert subtract(Gap(10, 3, 20, 500), Place(14), Place(18)) == [
        Gap(10, 3, 13, 500),
        Gap(18, 0, 20, 500),
    ]


def test_what_is_held_lies_around_the_gaps() -> None:
    assert list(between(30, [(20, 22), (5, 9)])) == [(1, 4), (10, 19), (23, 30)]
    assert list(between(30, [(1, 30)])) == []
    assert list(between(0, [])) == []


def test_of_a_gap_only_what_the_other_holds_is_asked_for() -> None:
    assert list(within(GAP, [(1, 12), (15, 16), (21, 30)])) == [(Place(10), 12), (Place(15), 16)]
    assert list(within(Gap(10, 4, 20, 0), [(1, 99)])) == [(Place(10, 4), 20)]
    assert list(within(Gap(10, 4, 20, 0), [(1, 9)])) == []


def test_gaps_that_overlap_become_one() -> None:
    found = merged([Gap(30, 0, 40, 9), Gap(10, 5, 20, 1), Gap(15, 0, 18, 7), Gap(21, 0, 22, 2)])
    assert found == [Gap(10, 5, 20, 7), Gap(21, 0, 22, 2), Gap(30, 0, 40, 9)]


def test_a_snapshot_behind_what_came_by_leaves_no_gap_and_one_beyond_it_does() -> None:
    lacks = Lacks(Standing(90, 100, 0, []))
    assert not lacks.skip_to(100, 1)
    lacks.came(101)
    assert lacks.skip_to(150, 1_000)
    assert lacks.gaps == lacks.unwritten == [Gap(102, 0, 150, 1_000)]
    assert not lacks.skip_to(150, 1_000)
    assert lacks.complete_to == 150


def test_a_file_of_an_earlier_release_is_believed_once() -> None:
    lacks = Lacks(Standing(90, None, 0, []))
    assert not lacks.skip_to(120, 1)
    assert lacks.skip_to(121, 1)
    assert lacks.gaps == [Gap(121, 0, 121, 1)]


def test_what_was_pending_when_the_file_was_asked_is_still_lacking() -> None:
    lacks = Lacks(Standing(0, 0, 0, []))
    lacks.skip_to(10, 1)
    pending = lacks.pending()
    lacks.writing, lacks.unwritten = lacks.unwritten, []
    lacks.writing = []  # written, after the file was asked
    lacks.learn([], pending)
    assert lacks.gaps == [Gap(1, 0, 10, 1)]
    lacks.learn([Gap(5, 2, 10, 1)], [])
    assert lacks.gaps == [Gap(5, 2, 10, 1)]
