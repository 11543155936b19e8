"""The two parts of a demo: one round of changes with a comparison, and the user's own changes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from .bed import Bed, Late
from .changes import Change
from .journey import Journey, differences, tree
from .printed import head, path_row, row, show, some

_PLAY_TURN_S = 0.02
_INVITATION = (
    "Now it is yours. In another terminal, change files in the first and look into the second:"
)


def one_round(bed: Bed) -> bool:
    """Make every kind of change in turn and compare; returns whether both directories are equal."""
    head("after the writer's close")
    try:
        for change in bed.changes.all():
            _travel(bed, change)
    except Late as late:
        show("", *some(late.lines))
    show("  * from the first of them to the last")
    _print_notes(bed)
    return _compare(bed.source, bed.target)


def _travel(bed: Bed, change: Change) -> None:
    bed.take()
    began = time.time()
    paths = change.act()
    journey = Journey.of(bed.source, bed.target, paths, began if change.is_burst else time.time())
    try:
        bed.travel(journey)
    finally:
        show(row(change.label, journey.cells()))


def _print_notes(bed: Bed) -> None:
    show(*some(bed.notes))
    bed.notes.clear()


def _compare(source: Path, target: Path) -> bool:
    ours, theirs = tree(source), tree(target)
    found = differences(ours, theirs)
    if found:
        counts = f"host-a has {len(ours)} files, host-b {len(theirs)}"
        show("", f"{counts}; {len(found)} differ:", *some(found))
        return False
    size = sum(seen.size for seen in ours.values()) / 2**20
    equal = "names, bytes, mtime and mode are equal in host-a and host-b."
    show("", f"{len(ours)} files, {size:.1f} MiB: {equal}")
    return True


def follow(bed: Bed) -> None:
    """Show each change of the user until Ctrl-C."""
    show("", _INVITATION, "", f"    cd {bed.source}", f"    ls -lR {bed.target}")
    show("", "Ctrl-C ends the demo and removes both.", "")
    head("after the file's last change")
    under_way: dict[str, Journey] = {}
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            bed.require()
            _note_events(bed, under_way)
            _print_arrivals(under_way)
            _print_notes(bed)
            time.sleep(_PLAY_TURN_S)


def _note_events(bed: Bed, under_way: dict[str, Journey]) -> None:
    for event in bed.take():
        if event.role == "push" and event.path:
            began = _changed(bed.source / event.path, event.at)
            journey = Journey.of(bed.source, bed.target, [event.path], began)
            under_way[event.path] = journey
        if event.path in under_way:
            under_way[event.path].note(event)


def _print_arrivals(under_way: dict[str, Journey]) -> None:
    for journey in under_way.values():
        if journey.hops["pull"]:
            journey.look()
    arrived = [path for path, journey in under_way.items() if journey.complete()]
    show(*some([path_row(path, under_way.pop(path)) for path in arrived], indent=""))


def _changed(file: Path, otherwise: float) -> float:
    """The time of the last change in seconds since the epoch.

    The kernel keeps the time for everything except a deletion, so deletions get `otherwise`.
    """
    try:
        return file.lstat().st_ctime
    except OSError:
        return otherwise
