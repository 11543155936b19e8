"""The page of one instance: its rows, within bounds, and harmless whatever names are in it."""

from __future__ import annotations

from dataclasses import replace

from syncloud.cli.status_page import SHOWN_PATHS, page
from syncloud.service.status import Snapshot

NOW = Snapshot(
    role="push",
    directory="/srv/a",
    bucket="b",
    prefix="p/",
    at=1_000.0,
    running=True,
    files=1,
    last_reconcile=900.0,
)


def test_the_page_names_a_bounded_number_of_paths_in_lines_of_their_own() -> None:
    failing: list[dict[str, str | float]] = [
        {"path": f"{n:03}\n", "code": "E", "cause": "c", "hint": "", "tries": 2, "since": 0.0}
        for n in range(25)
    ]
    left_out = {f"{number:03}\x1b": "a pipe" for number in range(30)}
    text = page(
        "jef", replace(NOW, left_out=left_out, left_out_count=30, failing=failing, failing_count=25)
    )
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("  skipped ") for line in lines) == SHOWN_PATHS
    assert sum(line.startswith("  failing ") for line in lines) == SHOWN_PATHS
    assert [line.strip() for line in lines if "more (--json" in line] == [
        "and 10 more (--json has all)",
        "and 5 more (--json has all)",
    ]
    assert "  push            /srv/a -> s3://b/p/" in lines
