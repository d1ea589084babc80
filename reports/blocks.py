"""What a result is made of, as values without any markup: sections of figures, tables, facts, sentences, charts and code.

Whoever has a result fills these in with plain text. `reports.writers` turns them into text for a terminal, Markdown and JSON,
`reports.page` into HTML, so escaping has one place for each format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

Tone = Literal["", "good", "bad", "warn"]
Scale = Literal["linear", "log", "elapsed", "tail", "category"]
Mark = Literal["line", "step", "area", "bar", "hbar", "dot"]
Dash = Literal["solid", "dash", "dot"]

ABSENT = "–"
"""What stands for a figure that a report does not have."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure: what it is, the figure, and a word of explanation under it."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Headline figures side by side."""

    items: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A heading. Columns of the kind "number" are aligned at the right and sort by amount; "mark" shows a cell's tone.

    `aside`: shown on a page only, which has room for it.
    """

    label: str
    kind: Literal["text", "number", "mark"] = "text"
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """Text as shown. `sort` is the amount behind it, where the text does not say it to a machine; `link` an anchor."""

    text: str
    sort: float | None = None
    tone: Tone = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; the first cell of a row names it. `tools`: the page offers a filter and sorting."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    tools: bool = False
    choices: int | None = None
    """Column whose few values can be chosen from, beside the filter by text."""
    prose: bool = False
    """Cells hold sentences: where there is little room, each stands on lines of its own."""
    quiet: str = ""
    """What to call rows without a tone, such as "figures without a clear change". A page shows them last, Markdown folds
    them away; "": all rows are of equal interest."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what they are."""

    caption: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; with a tone other than "", one that stands out."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences of one kind: notes, reasons, or verdicts with their tones."""

    items: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text shown letter by letter."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, or one colour of bars. `x` is in the unit of the x axis; a `y` of None is a gap.

    For the marks "step", "area" and "bar", `x` holds the left edges of bins and each `y` holds until the next edge, so
    the last `y` is None. `colour` is a number of the palette, 0 to 7. `labels` name points that the axis cannot name.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    colour: int = 0
    dash: Dash = "solid"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, its unit and its scale.

    "elapsed": seconds, shown as a clock. "tail": 1 / (1 - quantile) on a log scale, so that 90, 99 and 99.9 % lie evenly.
    "category": positions 0, 1, 2 ... named by `names`.
    """

    title: str
    unit: str = ""
    scale: Scale = "linear"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. Its mark says how the series are drawn.

    "line" joins points. "step" draws a level for each bin, "area" fills under it, "bar" stacks filled bins. "hbar" stacks
    lying bars, a row for each name of the y axis; "dot" puts points on such rows. `wide`: it takes the page's whole width.
    """

    id: str
    title: str
    mark: Mark
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts in a grid."""

    items: tuple[Chart, ...]


Block = Figures | Table | Facts | Text | Items | Code | Charts


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, its anchor, and the blocks under it. A section of level 3 belongs to the one of level 2 before it."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    level: Literal[2, 3] = 2
    lead: str = ""
    menu: str = ""
    """Its name in the page's menu; without one it is not in there."""
    data: Any = None
    """The values that the blocks show, as JSON has them under the section's id; None: JSON has the blocks themselves."""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole result."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    """What JSON has beside the sections, by name."""


def number(value: float | None, digits: int = 0) -> str:
    """With a comma between thousands and so many decimals; ABSENT for None or what is no number."""
    return ABSENT if value is None or not isfinite(value) else f"{value:,.{digits}f}"


def amount(value: float | None) -> str:
    """A whole number as it is, any other with three figures that count or more: 0.0123, 1.24, 12.4, 124, 12,400."""
    if value is None or not isfinite(value):
        return ABSENT
    if isinstance(value, int) or not value:
        return f"{value:,.0f}"
    size = abs(value)
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.01 else 4}f}"


def percent(share: float | None) -> str:
    """A share as a percentage: 0 %, 0.03 %, 1.2 %, 34 %; ABSENT for None."""
    if share is None:
        return ABSENT
    digits = 0 if share == 0 or share >= 0.1 else 1 if share >= 0.01 else 2
    return f"{share * 100:.{digits}f} %"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are any: 0:07, 12:30, 1:00:00. Rounded to seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def number_cell(value: float | None, digits: int = 0, tone: Tone = "") -> Cell:
    """A figure with its amount to sort by."""
    return Cell(number(value, digits), value, tone)


def amount_cell(value: float | None, tone: Tone = "") -> Cell:
    """As `amount`, with the value to sort by."""
    return Cell(amount(value), value, tone)


def share_cell(share: float | None, *, bad: bool = False) -> Cell:
    """A share as a percentage, with its amount to sort by. `bad`: a share above 0 is a bad sign."""
    return Cell(percent(share), share, "bad" if bad and share else "")


def time_digits(values_ms: Iterable[float | None]) -> int:
    """Decimals for a table of times in ms: the same for all, so that the figures stand under each other."""
    return 2 if max((v for v in values_ms if v is not None), default=0.0) < 1000 else 1
