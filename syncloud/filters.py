"""Which paths take part: gitignore patterns. Owner of pathspec.

`--exclude` patterns are those of gitignore(5), in order, the last match wins; `--include` is the same with the sense turned
round: it takes back what an earlier pattern excluded. With only includes, everything else is excluded.
"""

from __future__ import annotations

from collections.abc import Sequence

import pathspec

from .errors import ConfigurationError


class Filter:
    """`patterns`: (sense, pattern) in the user's order, sense True for include.

    Raises ConfigurationError for a pattern that gitignore does not know.
    """

    def __init__(self, patterns: Sequence[tuple[bool, str]] = ()) -> None:
        lines = [f"!{pattern}" if include else pattern for include, pattern in patterns]
        if patterns and all(include for include, _ in patterns):
            lines = ["**", "!*/", *lines]
        self._lines = lines
        try:
            self._spec = pathspec.GitIgnoreSpec.from_lines(lines)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"pattern not understood: {error}", hint="patterns are those of gitignore(5); quote them from the shell"
            ) from error

    def excludes(self, path: str) -> bool:
        """Whether `path` (relative, POSIX) takes no part."""
        return bool(self._lines) and self._spec.match_file(path)

    def prunes(self, directory: str) -> bool:
        """Whether nothing below `directory` can take part, as gitignore has it: what a parent excludes stays excluded."""
        return bool(self._lines) and self._spec.match_file(directory + "/")
