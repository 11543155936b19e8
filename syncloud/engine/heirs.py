"""Index of failing paths by content: each may be the new name of a file that is to be deleted."""

from __future__ import annotations

from ..core.model import Base, ContentKey


class Heirs:
    """Until a failing new name arrives, only the old name holds the bytes."""

    def __init__(self) -> None:
        self._paths: dict[ContentKey, set[str]] = {}
        self._contents: dict[str, ContentKey] = {}

    def learn(self, path: str, content: ContentKey | None) -> None:
        """Take the `content` of a failing path; without one, the former content still counts."""
        if content is not None:
            self.forget(path)
            self._contents[path] = content
            self._paths.setdefault(content, set()).add(path)

    def knows(self, path: str) -> bool:
        return path in self._contents

    def forget(self, path: str) -> None:
        content = self._contents.pop(path, None)
        if content is not None and (paths := self._paths.get(content)) is not None:
            paths.discard(path)
            if not paths:
                del self._paths[content]

    def heir(self, base: Base | None) -> str | None:
        """A failing path that may be the new name of `base`, or None.

        An empty file has no heir, because it has no bytes to lose, and all empty objects have the
        same ETag.
        """
        if base is None or not base.size:
            return None
        paths = self._paths.get((base.source[0], base.size), ())
        return next((path for path in paths if path != base.path), None)
