"""Figures in the documentation, put there by the benchmark that measured them: nothing is pasted by hand."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def put(page: str, mark: str, text: str) -> None:
    """Put `text` into docs/`page`, in place of what stands between the lines `<!-- MARK -->` and `<!-- end of MARK -->`.

    Raises ValueError if these lines are not there, once each and in this order.
    """
    path = DOCS / page
    first, last = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    above, _, rest = (whole := path.read_text("utf-8")).partition(first)
    _, _, below = rest.partition(last)
    if whole.count(first) != 1 or whole.count(last) != 1 or not rest.count(last):
        raise ValueError(
            f"{path}: the lines {first.strip()} and {last.strip()} must stand there once each, in this order"
        )
    path.write_text(f"{above}{first}\n{text.strip()}\n\n{last}{below}", "utf-8")
