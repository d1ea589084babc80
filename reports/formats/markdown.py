"""Reports and tables as GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from reports.blocks import ABSENT, decimal
from reports.formats.artillery_text import js_number
from reports.model import SUMMARY_KEYS, Report, Summary
from reports.printable import printable


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table; columns in `left`, counted from 0, are text and the others figures. Every cell is escaped."""
    rule = [":--" if at in left else "--:" for at, _ in enumerate(headings)]
    lines = [rule, *([escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, *lines])


def escaped(text: str) -> str:
    """Text that shows as it is: it may come from a server, or from a script of somebody else's.

    An underscore within a word stays: it is no emphasis there. An empty comment after an @ keeps GitHub from notifying a person;
    neither a backslash nor an entity does.
    """
    found = _MARKUP.sub(r"\\\1", printable(" ".join(text.split())))
    found = _BLOCK.sub(r"\1\\\2\3", found)
    return _MENTION.sub("@<!-- -->", found.replace("&", "&amp;").replace("<", "&lt;"))


_MARKUP = re.compile(r"([\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_]))")
_BLOCK = re.compile(r"^(\d{0,9})([.)]|#{1,6}|\+)(?= |$)|^(>|-(?=[- ]*-$| )|=(?=[= ]*$))")
"""What begins a heading, a quotation, a list or a rule. A "-" alone stays: in a table it is a figure that is missing."""
_MENTION = re.compile(r"@(?=\w)")


def report_text(report: Report) -> str:
    """The aggregate as two tables: counters and rates, and distributions (times in ms)."""
    total = report.aggregate
    single = [(name, js_number(count)) for name, count in sorted(total.counters.items())]
    single += [(name, f"{js_number(rate.per_second)}/sec") for name, rate in sorted(total.rates.items())]
    keys = [k for k in SUMMARY_KEYS if k != "p50" and any(getattr(s, k) is not None for s in total.summaries.values())]
    summaries = [
        (name, *(_figure(report, name, summary, key) for key in keys))
        for name, summary in sorted(total.summaries.items())
    ]
    parts = [table(("metric", "value"), single)] if single else []
    parts += [table(("metric", *keys), summaries)] if summaries else []
    return "\n".join(parts) or "No measurements.\n"


def _figure(report: Report, name: str, summary: Summary, key: str) -> str:
    """A figure of a distribution; a bound such as "< 0.2" where the generator could not tell so short a time."""
    figure = summary.figure(key)
    if figure is None:
        return ABSENT
    bound = None if key == "count" else report.bound_ms(name, figure)
    return js_number(figure) if bound is None else f"< {decimal(bound)}"
