"""The parts of a result, as values without any markup: sections of figures, tables, facts, sentences, charts and code.

Each kind of result fills them with plain text. `reports.writers` turns them into text for a terminal, Markdown and JSON,
`reports.page` into HTML, so that each format has a single place that escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import floor, isfinite, log10
from typing import Any, Literal

Tone = Literal["", "good", "bad", "warn"]
Scale = Literal["linear", "log", "elapsed", "tail", "category"]
Mark = Literal["line", "step", "area", "bar", "hbar", "bars", "dot"]
Dash = Literal["solid", "dash", "dot"]

ABSENT = "–"
"""Stands for a figure that a report does not have."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure: its name, its value, and a few words of explanation under it."""

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
    """A column's heading. Columns of the kind "number" are right-aligned and sort by amount; "mark" shows a cell's tone.

    `aside`: shown only on a page, which has room for it. `folded`: in a table of sentences, shown where a row is unfolded.
    """

    label: str
    kind: Literal["text", "number", "mark"] = "text"
    aside: bool = False
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell: its text as shown. `sort` is the amount to sort by, if the text itself will not do; `link` an address."""

    text: str
    sort: float | None = None
    tone: Tone = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: rows under headings; the first cell names its row. `tools`: the page offers a filter and sorting."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    tools: bool = False
    choices: int | None = None
    """Column whose few values can be chosen from, beside the filter by text."""
    prose: bool = False
    """Cells hold sentences: a page shows each row as a line to unfold, text for a terminal each cell on a line of its own."""
    quiet: str = ""
    """What to call rows without a tone, such as "figures without a clear change". A page shows them last, Markdown folds
    them away; "": all rows are of equal interest."""
    folded: bool = False
    """A page shows it only on demand."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of names and their values."""

    caption: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a tone other than "" makes it stand out."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences of one kind: notes, reasons, or verdicts with their tones."""

    items: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text shown exactly as it is, in a fixed-width font."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """One curve, or one colour of bars. `x` is in the unit of the x axis; a `y` of None is a gap.

    For the marks "step", "area" and "bar", `x` holds the left edges of bins and each `y` holds until the next edge, so
    the last `y` is None. `colour` is a number of the palette, 0 to 7. `labels` name points that the axis cannot name.
    `words` stand at the ends of the mark "bars", one for each value, in red where the tone is "bad".
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    colour: int = 0
    dash: Dash = "solid"
    labels: tuple[str, ...] = ()
    words: tuple[Text, ...] = ()


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
    lying bars, a row for each name of the y axis; "bars" puts them under each other, as outlines if the series is dashed;
    "dot" puts points on such rows. `wide`: it takes the page's whole width.
    """

    id: str
    title: str
    mark: Mark
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""
    wide: bool = False
    marks: tuple[float, ...] = ()
    """Places on the x axis with an upright line, such as where a level changed; for curves and bins."""


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
    folded: bool = False
    """A page shows only its title until it is unfolded; sections of level 3 that belong to it are inside."""
    data: Any = None
    """The values that the blocks show, as JSON has them under the section's id; None: JSON has the blocks themselves."""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole result."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    """Values that JSON has beside the sections, by name."""


def number(value: float | None, digits: int = 0) -> str:
    """Format a number with a comma between thousands and the given number of decimals; ABSENT for None, nan and infinity."""
    return ABSENT if value is None or not isfinite(value) else f"{value:,.{digits}f}"


def amount(value: float | None) -> str:
    """Format a number: a whole one as it is, any other with at least three significant figures: 0.0123, 1.24, 12.4, 12,400."""
    if value is None or not isfinite(value):
        return ABSENT
    if isinstance(value, int) or not value:
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - floor(log10(abs(value))))}f}"


def decimal(value: float | None, digits: int = 6) -> str:
    """Format a number for a sentence: `digits` significant figures, no trailing zeros, no exponent: 10000, 12.5, 0.00012.

    Digits before the decimal point are never cut off. ABSENT for None, nan and infinity.
    """
    if value is None or not isfinite(value):
        return ABSENT
    places = 0 if not value else max(0, digits - 1 - floor(log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float | None) -> str:
    """Format a share as a percentage: 0 %, 0.03 %, 1.2 %, 34 %; ABSENT for None.

    Only a share of 0 is "0 %" and only one of 1 is "100 %": one failure in 100,000 is "< 0.01 %", one success too few "99.9 %".
    """
    if share is None:
        return ABSENT
    digits = 0 if share == 0 or share >= 0.1 else 1 if share >= 0.01 else 2
    while digits < 2 and share < 1 and round(share * 100, digits) == 100:
        digits += 1
    text = f"{share * 100:.{digits}f}"
    if share > 0 and not float(text):
        return "< 0.01 %"
    return "> 99.99 %" if share < 1 and float(text) == 100 else f"{text} %"


def percentage(share: float) -> str:
    """Format a share with two decimals, for the line of a rule: 0.00%, 12.34%; one above 0 is at least "<0.01%"."""
    text = f"{share:.2%}"
    return "<0.01%" if share > 0 and text == "0.00%" else text


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, and hours if needed: 0:07, 12:30, 1:00:00. Rounded to whole seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def number_cell(value: float | None, digits: int = 0, tone: Tone = "") -> Cell:
    """A cell with a number, formatted as by `number`, that sorts by its value."""
    return Cell(number(value, digits), value, tone)


def amount_cell(value: float | None, tone: Tone = "") -> Cell:
    """A cell with a number, formatted as by `amount`, that sorts by its value."""
    return Cell(amount(value), value, tone)


def share_cell(share: float | None, *, bad: bool = False) -> Cell:
    """A cell with a share as a percentage, that sorts by its value. `bad`: a share above 0 is a bad sign."""
    return Cell(percent(share), share, "bad" if bad and share else "")


def time_digits(values_ms: Iterable[float | None]) -> int:
    """The number of decimals for all times (ms) in a table, so that digits of equal weight stand under each other."""
    return 2 if max((v for v in values_ms if v is not None), default=0.0) < 1000 else 1
