"""Parts of a page that a program writes, between two comments; the rest of the page is written by hand."""

from __future__ import annotations

from collections.abc import Iterable


def filled(text: str, name: str, lines: Iterable[str]) -> str:
    """``text`` with ``lines`` between ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    >>> filled("a\\n<!-- b: begin -->\\nold\\n<!-- b: end -->\\nc", "b", ["new"])
    'a\\n<!-- b: begin -->\\nnew\\n<!-- b: end -->\\nc'
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return "\n".join([before + begin, *lines, end + after])
