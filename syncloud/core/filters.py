"""The path filter: gitignore patterns with git's semantics, extended by includes, which git lacks.

`--exclude` patterns are those of gitignore(5), in order; the last match wins. `--include` is a
pattern with the opposite sense: it takes back an earlier exclusion. Paths below an excluded
directory cannot be taken back.

With includes alone all other paths are excluded: the last pattern that matches a path, or a
directory above it, decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ConfigurationError
from .patterns import Pattern, octets, parse

_CACHED = 4096
"""Maximum directories in the cache of rules."""

_LONGEST = 4096
"""Maximum characters of a path in any tree (PATH_MAX; a key has 1,024 bytes). The filter passes
longer paths on, because other code refuses them by name.
"""

_NONE = -1
"""Rule number of a path that no rule matches."""

_Rule = tuple[int, bool, Callable[[str], bool]]
"""A rule: its number, whether it matches whole paths or last components, its predicate."""


class Filter:
    """A compiled list of `patterns`.

    Each is a pair (sense, pattern) in the user's order; sense is True for include. A `!` inverts
    the sense. Raises ConfigurationError for a pattern that cannot be a line of a gitignore file,
    and for `!` alone.
    """

    def __init__(self, patterns: Sequence[tuple[bool, str]] = ()) -> None:
        # With includes alone the patterns select paths at any depth; otherwise they exclude paths.
        self._chooses = bool(patterns) and all(include for include, _ in patterns)
        understood = [(include, _understood(text)) for include, text in patterns]
        rules = [(include, rule) for include, rule in understood if rule is not None]
        # The verdict for each rule number; the last one, number -1, is for paths without a rule.
        self._out = [*(include == rule.negated for include, rule in rules), self._chooses]
        numbered = [(number, rule) for number, (_, rule) in enumerate(rules)][::-1]
        self._for_folders = [(number, rule.whole, rule.matches) for number, rule in numbered]
        self._for_files = [
            (number, rule.whole, rule.matches) for number, rule in numbered if not rule.folders
        ]
        self._known = {"": _NONE}

    def excludes(self, path: str) -> bool:
        """Whether `path` is excluded (relative, POSIX; a directory's path ends with a slash)."""
        if len(self._out) == 1:
            return self._chooses
        if len(path) > _LONGEST:
            return False
        whole = octets(path)
        bare = whole.removesuffix("/")
        above = self._folder_rule(bare.rpartition("/")[0])
        return self._out[self._rule(bare, above, bare != whole)]

    def prunes(self, directory: str) -> bool:
        """Whether everything below `directory` is excluded; as in gitignore, that is final."""
        if len(self._out) == 1 or self._chooses or len(directory) > _LONGEST:
            return False
        return self._out[self._folder_rule(octets(directory))]

    def _rule(self, path: str, above: int, is_folder: bool) -> int:
        """The rule that decides about `path`; `above` is the rule of its parent directory."""
        if self._out[above] and not self._chooses:
            return above
        own = _last(self._for_folders if is_folder else self._for_files, path)
        return max(own, above) if self._chooses else own

    def _folder_rule(self, folder: str) -> int:
        """A directory's rule, by a loop from the nearest cached ancestor: any depth works."""
        known, unknown = self._known, []  # another thread may replace the cache
        while (rule := known.get(folder)) is None:
            unknown.append(folder)
            folder = folder.rpartition("/")[0]
        for one in reversed(unknown):
            known[one] = rule = self._rule(one, rule, True)
        if len(known) > _CACHED:
            self._known = {"": _NONE}
        return rule


def _last(rules: Sequence[_Rule], path: str) -> int:
    """The first match in `rules`, whose order is reversed: the last match wins."""
    name = path.rpartition("/")[2]
    for number, whole, matches in rules:
        if matches(path if whole else name):
            return number
    return _NONE


def _understood(text: str) -> Pattern | None:
    hint = "patterns have the form of gitignore(5); quote each pattern from the shell"
    if set(text) & set("\0\n\r"):
        raise ConfigurationError(
            f"pattern not understood: {text!r} has more than one line", hint=hint
        )
    if text.rstrip(" ") == "!":
        raise ConfigurationError("pattern not understood: nothing follows the '!'", hint=hint)
    return parse(text)
