"""Which paths take part: gitignore patterns, as git judges them, and includes, which git has not.

`--exclude` patterns are those of gitignore(5), in order, the last match wins; `--include` is the same with the sense turned
round: it takes back what an earlier pattern excluded. What is below an excluded directory cannot be taken back.

With only includes everything else is excluded: the last pattern that matches a path, or a directory above it, decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ConfigurationError
from .patterns import Pattern, octets, parse

_CACHED = 4096
"""Directories whose rule is remembered."""

_LONGEST = 4096
"""Characters of a path that no tree can have (PATH_MAX; a key has 1,024 bytes): others refuse it, by name."""

_NONE = -1
"""The number of no rule."""

_Rule = tuple[int, bool, Callable[[str], bool]]
"""Its number; whether it is asked about the whole path, or the last component; what it is asked."""


class Filter:
    """`patterns`: (sense, pattern) in the user's order, sense True for include. A `!` turns the sense round.

    Raises ConfigurationError for a pattern that no line of a gitignore file can be, and for `!` alone.
    """

    def __init__(self, patterns: Sequence[tuple[bool, str]] = ()) -> None:
        # With only includes the patterns say what takes part, wherever it is; else what does not.
        self._chooses = bool(patterns) and all(include for include, _ in patterns)
        rules = [(include, rule) for include, text in patterns if (rule := _understood(text)) is not None]
        # By the number of a rule; the last one, number -1, is for no rule.
        self._out = [*(include == rule.negated for include, rule in rules), self._chooses]
        for_folders = [(number, rule.folders, rule.whole, rule.matches) for number, (_, rule) in enumerate(rules)][::-1]
        self._for_folders = [(number, whole, matches) for number, _, whole, matches in for_folders]
        self._for_files = [(number, whole, matches) for number, folders, whole, matches in for_folders if not folders]
        self._known = {"": _NONE}

    def excludes(self, path: str) -> bool:
        """Whether `path` (relative, POSIX; that of a directory ends with a slash) takes no part."""
        if len(self._out) == 1:
            return self._chooses
        if len(path) > _LONGEST:
            return False
        whole = octets(path)
        bare = whole.removesuffix("/")
        return self._out[self._rule(bare, self._folder_rule(bare.rpartition("/")[0]), bare != whole)]

    def prunes(self, directory: str) -> bool:
        """Whether nothing below `directory` can take part, as gitignore has it: what a parent excludes stays excluded."""
        if len(self._out) == 1 or self._chooses or len(directory) > _LONGEST:
            return False
        return self._out[self._folder_rule(octets(directory))]

    def _rule(self, path: str, above: int, is_folder: bool) -> int:
        """The rule that decides about `path`, where the rule `above` does so for the directory that it is in."""
        if self._out[above] and not self._chooses:
            return above
        own = _last(self._for_folders if is_folder else self._for_files, path)
        return max(own, above) if self._chooses else own

    def _folder_rule(self, folder: str) -> int:
        """The same for a directory: from the nearest one above that is known downwards, however deep."""
        known, unknown = self._known, []  # another thread may replace it
        while (rule := known.get(folder)) is None:
            unknown.append(folder)
            folder = folder.rpartition("/")[0]
        for one in reversed(unknown):
            known[one] = rule = self._rule(one, rule, True)
        if len(known) > _CACHED:
            self._known = {"": _NONE}
        return rule


def _last(rules: Sequence[_Rule], path: str) -> int:
    """The first of `rules` that matches, of those in reverse order."""
    name = path.rpartition("/")[2]
    for number, whole, matches in rules:
        if matches(path if whole else name):
            return number
    return _NONE


def _understood(text: str) -> Pattern | None:
    hint = "patterns are those of gitignore(5); quote them from the shell"
    if set(text) & set("\0\n\r"):
        raise ConfigurationError(f"pattern not understood: {text!r} is more than a line", hint=hint)
    if text.rstrip(" ") == "!":
        raise ConfigurationError("pattern not understood: nothing follows the '!'", hint=hint)
    return parse(text)
