"""The merge of listings: against a naive model, in order, and blind where nothing can be seen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.diff import ScanSummary, SkipUnchanged, diff, flat
from syncloud.core.model import Absent, Base, Entry, Hint, ScanChunk, ScanRecord, Side, Unknown

PATHS = st.sampled_from(
    ["a", "a-b", "a/", "a/b", "a/b/c", "a0", "b", "d/x", "d/y", "é", "\uffff", "\U0001f600"]
)


def entry(path: str, tag: str = "1", size: int = 3) -> Entry:
    return Entry(path, (tag, ""), size, 0, 0o644)


def base(
    path: str, source: str = "1", target: str = "1", size: int = 3, *, absent: bool = False
) -> Base:
    return Base(path, (source, ""), (target, ""), size, 0, 0o644, None, absent)


def nothing(path: str) -> bool:
    """No path is excluded."""
    return False


def merged(
    source: Iterable[Side], target: Iterable[Side] | None, rows: Iterable[Base]
) -> list[Hint]:
    return list(
        diff(
            iter(source),
            None if target is None else iter(target),
            iter(rows),
            ScanSummary(),
            nothing,
        )
    )


def test_nothing_differs() -> None:
    assert merged([entry("a")], [entry("a")], [base("a")]) == []
    assert merged([entry("a")], None, [base("a")]) == []


def test_a_new_file_is_nominated() -> None:
    assert merged([entry("a")], [], []) == [Hint("a", reported=entry("a"))]


def test_a_changed_file_is_nominated() -> None:
    assert merged([entry("a", "2")], None, [base("a")]) == [Hint("a", reported=entry("a", "2"))]
    assert merged([entry("a", size=4)], None, [base("a")]) == [
        Hint("a", reported=entry("a", size=4))
    ]


def test_a_file_that_went_is_nominated_as_absent() -> None:
    assert merged([], None, [base("a")]) == [Hint("a", reported=Absent("a"))]
    assert merged([], [entry("a")], [base("a")]) == [Hint("a", reported=Absent("a"))]


def test_thousands_of_folders_that_cannot_be_seen_cost_each_path_the_same() -> None:
    """The diff asks each folder about its own paths alone.

    20,000 folders times 20,000 rows would take minutes.
    """
    blind = [
        Unknown(f"{number:05}/in", "cannot be listed", subtree=True) for number in range(20_000)
    ]
    rows = [base(f"{number:05}/in/x") for number in range(20_000)]
    census = ScanSummary()
    started = time.process_time()
    assert list(diff(iter(blind), None, iter([*rows, base("gone")]), census, nothing)) == [
        Hint("gone", reported=Absent("gone"))
    ]
    assert len(census.unknown) == 20_000
    assert time.process_time() - started < 10


def test_what_sorts_before_the_slash_does_not_open_a_folder_that_cannot_be_seen() -> None:
    source: list[Side] = [Unknown("d", "cannot be listed", subtree=True), entry("d-x"), entry("e")]
    assert merged(source, None, [base("d-x"), base("d/y"), base("d0"), base("e")]) == [
        Hint("d0", reported=Absent("d0"))
    ]


def test_a_released_file_is_left_alone_until_its_source_is_back() -> None:
    assert merged([], [entry("a")], [base("a", absent=True)]) == []
    assert merged([entry("a")], None, [base("a", absent=True)]) == [Hint("a", reported=entry("a"))]


def test_a_target_that_moved_is_looked_at_on_both_sides() -> None:
    assert merged([entry("a")], [entry("a", "2")], [base("a")]) == [
        Hint("a", reported=entry("a"), check_target=True)
    ]
    assert merged([entry("a")], [], [base("a")]) == [
        Hint("a", reported=entry("a"), check_target=True)
    ]


def test_a_file_that_only_the_target_has_is_its_own_affair() -> None:
    assert merged([], [entry("a")], []) == []


def test_a_file_on_both_sides_without_base_is_looked_at_on_both() -> None:
    assert merged([entry("a")], [entry("a")], []) == [
        Hint("a", reported=entry("a"), check_target=True)
    ]


def test_an_empty_directory_is_not_missed_in_a_listing_of_files() -> None:
    assert merged([entry("a/")], [], [base("a/")]) == []


def test_what_is_unknown_is_counted_and_not_nominated() -> None:
    census = ScanSummary()
    unknown = Unknown("a", "a symbolic link")
    assert (
        list(diff(iter([unknown, entry("b")]), None, iter([base("a"), base("b")]), census, nothing))
        == []
    )
    assert census.unknown == [unknown]
    assert census.files == 1


def test_below_a_blind_subtree_nothing_is_called_absent() -> None:
    blind = Unknown("d", "cannot be listed", subtree=True)
    rows = [base("d-x"), base("d/x"), base("d/y/z"), base("d0")]
    assert [hint.path for hint in merged([blind], None, rows)] == ["d-x", "d0"]


def test_below_a_blind_subtree_of_the_target_nothing_is_nominated() -> None:
    blind = Unknown("d", "cannot be listed", subtree=True)
    assert merged([entry("d/x", "2")], [blind], [base("d/x")]) == []


def test_a_blind_root_nominates_nothing() -> None:
    assert merged([Unknown("", "not mounted", subtree=True)], None, [base("a"), base("d/x")]) == []


def test_a_blind_subtree_that_is_sorted_as_a_directory_comes_in_time() -> None:
    """A scan sorts a directory as `d/`, so that its Unknown can follow `d-x`."""
    blind = Unknown("d", "cannot be listed", subtree=True)
    assert merged([entry("d-x"), blind], None, [base("d-x"), base("d/x")]) == []


def test_an_excluded_path_is_not_nominated() -> None:
    hints = diff(
        iter([entry("a"), entry("b")]), None, iter([]), ScanSummary(), lambda path: path == "a"
    )
    assert [hint.path for hint in hints] == ["b"]


def test_the_merge_keeps_nothing_but_the_heads() -> None:
    pulled: list[str] = []

    def listing() -> Iterable[Side]:
        for number in range(1_000):
            pulled.append(f"{number:04}")
            yield entry(f"{number:04}")

    hints = diff(iter(listing()), None, iter([]), ScanSummary(), nothing)
    assert next(hints).path == "0000"
    assert len(pulled) <= 2


# Against a naive model

TAGS = st.sampled_from(["1", "2"])
SIZES = st.sampled_from([3, 4])
ENTRIES = st.dictionaries(PATHS, st.tuples(TAGS, SIZES))
ROWS = st.dictionaries(PATHS, st.tuples(TAGS, TAGS, SIZES, st.booleans()))
UNKNOWNS = st.dictionaries(st.sampled_from(["a", "d", "b", ""]), st.booleans(), max_size=2)


def listed(files: dict[str, tuple[str, int]], unknowns: dict[str, bool]) -> list[Side]:
    """As a tree lists: nothing below what it cannot see."""
    hidden = [f"{path}/" if path else "" for path, subtree in unknowns.items() if subtree]
    sides: dict[str, Side] = {
        path: entry(path, *values)
        for path, values in files.items()
        if not any(path.startswith(prefix) for prefix in hidden)
    }
    sides |= {path: Unknown(path, "?", subtree) for path, subtree in unknowns.items()}
    return [sides[path] for path in sorted(sides)]


def naive(source: list[Side], target: list[Side] | None, rows: dict[str, Base]) -> list[Hint]:
    """With everything in memory, path by path."""
    here, there = {side.path: side for side in source}, {side.path: side for side in target or []}
    unknown = [side for side in (*here.values(), *there.values()) if isinstance(side, Unknown)]
    blind = [f"{side.path}/" if side.path else "" for side in unknown if side.subtree]
    hints = []
    for path in sorted({*here, *there, *rows}):
        if any(path == side.path for side in unknown) or any(
            path.startswith(prefix) for prefix in blind
        ):
            continue
        seen, met, row = here.get(path), there.get(path), rows.get(path)
        assert not isinstance(seen, Unknown | Absent)
        assert not isinstance(met, Unknown | Absent)
        if row is None:
            moved, doubted = seen is not None, seen is not None and met is not None
        else:
            moved = (
                not row.source_absent
                if seen is None
                else row.source_absent or (seen.size, seen.tag) != (row.size, row.source)
            )
            doubted = (
                not path.endswith("/")
                if met is None
                else (met.size, met.tag) != (row.size, row.target)
            )
            doubted = doubted and target is not None
        if moved or doubted:
            hints.append(Hint(path, reported=seen or Absent(path), check_target=doubted))
    return hints


@given(ENTRIES, UNKNOWNS, st.none() | ENTRIES, UNKNOWNS, ROWS)
def test_the_merge_is_what_a_naive_comparison_finds_and_in_order(
    files: dict[str, tuple[str, int]],
    blind: dict[str, bool],
    there: dict[str, tuple[str, int]] | None,
    blind_there: dict[str, bool],
    agreed: dict[str, tuple[str, str, int, bool]],
) -> None:
    source = listed(files, blind)
    target = None if there is None else listed(there, blind_there)
    rows = {path: base(path, *agreed[path][:3], absent=agreed[path][3]) for path in sorted(agreed)}
    hints = merged(source, target, rows.values())
    assert hints == naive(source, target, rows)
    assert [hint.path.encode() for hint in hints] == sorted(hint.path.encode() for hint in hints)


# Runs


def entry_of(seen: ScanRecord) -> Entry:
    tag = tuple(seen[1].split(" "))
    return Entry(seen[0], tag, int(tag[1]), 0, seen[2])


def in_runs(
    files: dict[str, tuple[str, int]], unknowns: dict[str, bool], lengths: list[int]
) -> list[Side | ScanChunk]:
    """A directory tree's listing: files in runs of these lengths, used in rotation."""
    found: list[Side | ScanChunk] = []
    room = 0
    for side in listed(files, unknowns):
        if not isinstance(side, Entry):
            found.append(side)
            room = 0
            continue
        if not room:
            lengths = [*lengths[1:], lengths[0]]
            found.append(ScanChunk([], entry_of))
            room = lengths[0]
        run = found[-1]
        assert isinstance(run, ScanChunk)
        run.records.append((side.path, f"{side.tag[0]} {side.size}", side.mode))
        room -= 1
    return found


def without_the_equal(
    listing: list[Side | ScanChunk], rows: dict[str, Base], census: ScanSummary
) -> list[Hint]:
    known = [
        (row.path, "" if row.source_absent else " ".join(row.source), row.mode)
        for row in rows.values()
    ]
    unlike = SkipUnchanged(listing, iter(known), rows.get, census)
    return list(diff(unlike.sides(), None, unlike.rows(), census, nothing))


@given(ENTRIES, UNKNOWNS, ROWS, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_nothing_is_lost_with_what_is_equal(
    files: dict[str, tuple[str, int]],
    blind: dict[str, bool],
    agreed: dict[str, tuple[str, str, int, bool]],
    lengths: list[int],
) -> None:
    listing = in_runs(files, blind, lengths)
    rows = {
        path: Base(path, (source, str(size)), ("1", ""), size, 0, 0o644, None, absent)
        for path, (source, _, size, absent) in sorted(agreed.items())
    }
    recorded = frozenset(("a", "b", "d/x"))
    one, other = ScanSummary(recorded=recorded), ScanSummary(recorded=recorded)
    hints = list(diff(flat(listing), None, iter(rows.values()), one, nothing))
    assert without_the_equal(listing, rows, other) == hints
    assert (other.files, other.unknown, other.met) == (one.files, one.unknown, one.met)


def test_of_what_is_equal_no_entry_is_made_and_no_row_is_read() -> None:
    """Some have changed, come and gone in one run; a step later all is equal again."""
    known: list[ScanRecord] = [
        (f"{number:03}", f"{number} 3", 0o644) for number in range(400) if number not in (120, 121)
    ]
    listing = [one for one in known if one[0] not in ("250", "390")]
    listing[5] = ("005", "9 3", 0o644)
    listing[120:120] = [("120", "7 3", 0o644), ("121", "7 3", 0o644)]
    made: list[str] = []
    read: list[str] = []

    def make(seen: ScanRecord) -> Entry:
        made.append(seen[0])
        return entry_of(seen)

    def base_of(path: str) -> Base:
        read.append(path)
        return Base(path, (str(int(path)), "3"), ("1", ""), 3, 0, 0o644, None)

    runs = [ScanChunk(listing[at : at + 50], make) for at in range(0, len(listing), 50)]
    census = ScanSummary()
    unlike = SkipUnchanged(runs, iter(known), base_of, census)
    hints = list(diff(unlike.sides(), None, unlike.rows(), census, nothing))
    assert [hint.path for hint in hints] == ["005", "120", "121", "250", "390"]
    assert census.files == len(listing)
    assert len(made) < 20
    assert len(read) < 20


def test_a_tree_that_has_gone_is_not_kept_in_memory() -> None:
    """Many rows without a file: they pass one by one."""
    pulled = 0

    def rows() -> Iterator[ScanRecord]:
        nonlocal pulled
        for number in range(10_000):
            pulled += 1
            yield f"a/{number:05}", "1 3", 0o644

    unlike = SkipUnchanged(
        [ScanChunk([("b", "1 3", 0o644)], entry_of)], rows(), lambda path: base(path), ScanSummary()
    )
    hints = diff(unlike.sides(), None, unlike.rows(), ScanSummary(), nothing)
    assert next(hints).path == "a/00000"
    assert pulled <= 3
