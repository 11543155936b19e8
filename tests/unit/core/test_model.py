"""The values of the model: tags of one state, the tag of a racy file, a row as the target."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncloud.core.model import RACY, Base, Entry, Tag, same

KNOWN = st.lists(st.sampled_from(["1", "2", "17", "etag"]), min_size=1, max_size=5).map(tuple)
MODES = st.integers(0, 0o777)


def seen(tag: Tag, looked: list[bool]) -> Tag:
    """`tag` as a call sees it that does not know each field; the first one is always known."""
    return tuple(
        field if number == 0 or looks else ""
        for number, (field, looks) in enumerate(zip(tag, looked, strict=True))
    )


@given(st.data(), KNOWN)
def test_two_looks_at_one_state_are_the_same_whatever_each_could_not_see(
    data: st.DataObject, tag: Tag
) -> None:
    looks = st.lists(st.booleans(), min_size=len(tag), max_size=len(tag))
    one, other = seen(tag, data.draw(looks)), seen(tag, data.draw(looks))
    assert same(one, other)
    assert same(other, one)


@given(st.data(), KNOWN)
def test_one_field_that_both_know_and_that_differs_is_another_state(
    data: st.DataObject, tag: Tag
) -> None:
    changed = data.draw(st.integers(0, len(tag) - 1))
    looks = st.lists(st.booleans(), min_size=len(tag), max_size=len(tag))
    one, other = list(seen(tag, data.draw(looks))), list(seen(tag, data.draw(looks)))
    one[changed], other[changed] = "before", "after"
    assert not same(tuple(one), tuple(other))
    assert not same(tuple(other), tuple(one))


def test_tags_of_two_kinds_are_never_compared() -> None:
    """A file's has four fields, an object's three: to compare them is an error of ours."""
    with pytest.raises(ValueError, match="shorter"):
        same(("11", "3", "99", "100"), ("11", "3", "99"))


@given(KNOWN, KNOWN)
def test_no_later_look_is_like_a_racy_one(tag: Tag, later: Tag) -> None:
    look = Entry("a", tag, 3, 17, 0o644)
    assert look.lasting_tag() == tag
    racy = replace(look, racy=True).lasting_tag()
    assert racy != tag
    assert not same(racy, (*tag[:-1], later[-1])), (
        "whatever its last field is: the file is read again"
    )
    assert (*racy[:-1], racy[-1].removeprefix(RACY)) == tag, (
        "it still shows when the file was changed"
    )


def test_a_look_that_has_brought_the_bytes_is_equal_to_one_that_has_not() -> None:
    look = Entry("a", ("11", "3", "99", "100"), 3, 17, 0o644, 5)
    assert replace(look, body=b"abc", written_by_us=None, racy=True) == look
    for other in (
        replace(look, crc=6),
        replace(look, mode=0o600),
        replace(look, mtime_ns=18),
        replace(look, path="b"),
    ):
        assert other != look
    assert "abc" not in repr(replace(look, body=b"abc")), "nobody's content comes into a log"


@given(MODES, MODES)
def test_the_target_has_all_bits_but_those_that_were_withheld(mode: int, more: int) -> None:
    withheld = mode & more
    base = Base("a", ("1", "3", "17", "5"), ("etag", "", "17"), 3, 17, mode, 5, withheld=withheld)
    target = base.as_target()
    assert target == Entry("a", ("etag", "", "17"), 3, 17, base.target_mode, 5)
    assert target.mode & withheld == 0
    assert target.mode | withheld == mode
