"""Which paths take part: gitignore patterns. Owner of pathspec.

`--exclude` patterns are those of gitignore(5), in order, the last match wins; `--include` is the same with the sense turned
round: it takes back what an earlier pattern excluded. With only includes, everything else is excluded. What is below an
excluded directory cannot be taken back.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from .errors import ConfigurationError

_CACHED = 4096
"""Directories whose verdict is remembered."""


class Filter:
    """`patterns`: (sense, pattern) in the user's order, sense True for include.

    Raises ConfigurationError for a pattern that gitignore does not know.
    """

    def __init__(self, patterns: Sequence[tuple[bool, str]] = ()) -> None:
        # With only includes the patterns say what takes part, wherever it is; else what does not.
        self._chooses = bool(patterns) and all(include for include, _ in patterns)
        lines = [f"!{pattern}" if include and not self._chooses else pattern for include, pattern in patterns]
        self._spec = _understood(lines) if lines else None
        self._pruned = functools.lru_cache(_CACHED)(self._prunes)

    def excludes(self, path: str) -> bool:
        """Whether `path` (relative, POSIX) takes no part."""
        if self._spec is None:
            return False
        if self._chooses:
            return not self._spec.match_file(path)
        return bool(self._spec.match_file(path)) or self.prunes(path.removesuffix("/").rpartition("/")[0])

    def prunes(self, directory: str) -> bool:
        """Whether nothing below `directory` can take part, as gitignore has it: what a parent excludes stays excluded."""
        return bool(directory) and self._spec is not None and not self._chooses and self._pruned(directory)

    def _prunes(self, directory: str) -> bool:
        assert self._spec is not None
        return bool(self._spec.match_file(directory + "/")) or self.prunes(directory.rpartition("/")[0])


def _understood(lines: Sequence[str]) -> Any:
    import pathspec  # here, since most starts have no pattern, and it takes 20 ms

    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"pattern not understood: {error}", hint="patterns are those of gitignore(5); quote them from the shell"
        ) from error
