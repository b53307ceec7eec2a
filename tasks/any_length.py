"""Forms of a task whose lists may have any length: `pairs-5`, `items-12`."""

from __future__ import annotations

import re
from collections.abc import Mapping


class AnyLength(dict[str, str]):
    """Forms by name, and besides them `STYLE-N` for each style and every N of two or more.

    named: the forms that have a name of their own -> the style and length that they stand for.
    """

    def __init__(self, meanings: Mapping[str, str], named: Mapping[str, str]) -> None:
        super().__init__(meanings)
        self.named = dict(named)
        styles = sorted({form.rpartition("-")[0] for form in self.named.values()})
        self._pattern = re.compile(rf"({'|'.join(map(re.escape, styles))})-([1-9]\d*)")

    def __contains__(self, form: object) -> bool:
        found = self._pattern.fullmatch(str(form))
        return super().__contains__(form) or bool(found and int(found[2]) > 1)

    def style_and_length(self, form: str) -> tuple[str, int]:
        """`short` -> ("pairs", 5)."""
        style, _, n = self.named.get(form, form).rpartition("-")
        return style, int(n)
