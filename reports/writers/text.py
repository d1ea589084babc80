"""Writes blocks as text for a terminal. Charts are left out: they only show what tables and reports contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from textwrap import wrap

from reports.blocks import ABSENT, Block, Cell, Charts, Code, Facts, Figures, Items, Page, Section, Table, Text, Tone
from reports.printable import printable

_GAP = "  "
"""Between the columns of a table."""
_FEW_WORDS = 12
"""The least width of a column of words, in characters, where a table must fit into a terminal."""
_HARD = "\N{NO-BREAK SPACE}"
"""Stands for a space at which a line is not to be broken."""
_COLOURS = {"good": 32, "bad": 31, "warn": 33}


def to_text(page: Page, *, colour: bool = False, width: int | None = None) -> str:
    """Write the whole result. A single section gets no headings. With `colour`, good is green and bad is red.

    `width`: the terminal's, in characters. Cells of words and headings are broken into lines so that tables fit into it.
    """
    sections = said(page)
    alone = len(sections) == 1
    parts = [] if alone else [_headed(page.title, "="), plain(page.subtitle)]
    for section in sections:
        parts += [] if alone else [_headed(section.title, "-" if section.level == 2 else "."), plain(section.lead)]
        parts += _section(section, colour=colour, width=width)
    return "\n\n".join(part for part in parts if part) + "\n"


def said(page: Page) -> list[Section]:
    """The sections that have anything other than charts."""
    return [section for section in page.sections if any(not isinstance(block, Charts) for block in section.blocks)]


def plain(text: str) -> str:
    """Reduce a text to one line of printable characters: a report may contain text that an unknown server sent."""
    return printable(" ".join(text.split()))


def _headed(title: str, line: str) -> str:
    title = plain(title)
    return f"{title}\n{line * len(title)}"


def _section(section: Section, *, colour: bool, width: int | None) -> Iterator[str]:
    captions = sum(isinstance(block, Table) for block in section.blocks) > 1
    for (kind, _), some in groupby(section.blocks, lambda block: (type(block), getattr(block, "tone", ""))):
        if kind is Text:
            yield "\n".join(_sentence(block, colour=colour, width=width) for block in some if isinstance(block, Text))
        else:
            yield from (_block(block, captions=captions, colour=colour, width=width) for block in some)


def _block(block: Block, *, captions: bool, colour: bool, width: int | None) -> str:
    match block:
        case Figures(items):
            return _aligned([(f.label, f"{f.value} ({f.note})" if f.note else f.value) for f in items], width)
        case Facts(caption, items):
            return f"{plain(caption)}:\n{_aligned(items, width)}" if caption else _aligned(items, width)
        case Items(items):
            return "\n".join(
                _sentence(item, colour=colour, width=width, mark="" if item.tone else "- ") for item in items
            )
        case Table():
            lines = [plain(block.caption)] if captions else []
            lines += _prose(block, colour=colour) if block.prose else _table(block, colour=colour, width=width)
            return "\n".join([*lines, *(_broken(plain(block.note), width) if block.note else [])])
        case Code(caption, text):
            return "\n".join([f"{plain(caption)}:", *(f"    {plain(line)}" for line in text.splitlines())])
        case Text():
            return _sentence(block, colour=colour, width=width)
        case Charts():
            return ""


def _sentence(block: Text, *, colour: bool, width: int | None, mark: str = "") -> str:
    first, *others = _broken(f"{mark}{plain(block.text)}", width)
    return _painted("\n".join([first, *(" " * len(mark) + line for line in others)]), block.tone if colour else "")


def _broken(text: str, width: int | None) -> list[str]:
    """The lines of a text, at most `width` characters long where words allow."""
    if width is None or len(text) <= width:
        return [text]
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _table(block: Table, *, colour: bool, width: int | None) -> Iterator[str]:
    shown = [i for i, column in enumerate(block.columns) if not column.aside]
    lines = [[plain(block.columns[i].label) for i in shown]]
    lines += [[_cell(row[i].text) for i in shown] for row in block.rows]
    tones: list[Tone] = ["", *map(_tone, block.rows)]
    numbers = [block.columns[i].kind == "number" for i in shown]
    widths: Sequence[int] = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        widths = _fitting(list(zip(*lines, strict=True)), numbers, widths, width - len(_GAP) * (len(widths) - 1))
    for row, (line, tone) in enumerate(zip(lines, tones, strict=True)):
        kept = numbers if row else [False] * len(numbers)
        cells = [_parts(*each) for each in zip(line, widths, kept, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            placed = (
                text.rjust(w) if right else text.ljust(w) for text, w, right in zip(parts, widths, numbers, strict=True)
            )
            yield _painted(_GAP.join(placed).rstrip(), tone if colour else "")


def _parts(cell: str, width: int, is_number: bool) -> list[str]:
    """The lines of a cell. Numbers are broken only after a comma, so that each stays with its unit."""
    if not is_number:
        return _broken(cell, width)
    kept = ", ".join(part.replace(" ", _HARD) for part in cell.split(", "))
    return [part.replace(_HARD, " ") for part in _broken(kept, width)]


def _fitting(
    columns: Sequence[Sequence[str]], numbers: Sequence[bool], widths: Sequence[int], room: int
) -> Sequence[int]:
    """The widths of columns (each its heading, then its cells) for which there is `room`, if that can be.

    The headings of numbers are broken before anything else.
    """
    bodies, least = list(widths), []
    for i, (is_number, (heading, *cells)) in enumerate(zip(numbers, columns, strict=True)):
        words = max(map(len, heading.split()), default=1)
        if is_number:
            bodies[i] = max(words, *map(len, cells), 1)
            least.append(max(words, *(len(part) for cell in cells for part in _parts(cell, 1, True)), 1))
        else:
            longest = max((len(word) for cell in cells for word in cell.split()), default=1)
            least.append(min(_FEW_WORDS, max(longest, len(heading))))
    found = _fitted(_fitted(widths, bodies, room), least, room)
    # What broken numbers do not need is for words.
    needed = [least[i] if numbers[i] and w < bodies[i] else w for i, w in enumerate(found)]
    return _fitted([n if numbers[i] else widths[i] for i, n in enumerate(needed)], least, room)


def _fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """The widths, with the widest made narrower until all have room, if they can."""
    found = list(widths)
    while sum(found) > room and (wide := [i for i, w in enumerate(found) if w > least[i]]):
        found[max(wide, key=found.__getitem__)] -= 1
    return found


def _prose(block: Table, *, colour: bool) -> Iterator[str]:
    """Each row as the cell that names it, the first of the kind "text", and the others below it with their headings."""
    named = next(i for i, column in enumerate(block.columns) if column.kind == "text")
    rest = [i for i, column in enumerate(block.columns) if i != named and not column.aside]
    width = max((len(block.columns[i].label) for i in rest), default=0)
    for row in block.rows:
        yield _cell(row[named].text)
        for i in rest:
            line = f"    {plain(block.columns[i].label).ljust(width)}  {_cell(row[i].text)}"
            yield _painted(line.rstrip(), row[i].tone if colour else "")


def _tone(row: Sequence[Cell]) -> Tone:
    """The first tone in a row, which colours the whole row."""
    return next((cell.tone for cell in row if cell.tone), "")


def _cell(text: str) -> str:
    return "-" if text == ABSENT else plain(text)


def _aligned(pairs: Iterable[Sequence[str]], width: int | None) -> str:
    found = [(plain(name), _cell(value)) for name, value in pairs]
    names = max((len(name) for name, _ in found), default=0) + len(_GAP)
    lines = [
        f"{label.ljust(names)}{part}"
        for name, value in found
        for label, part in zip_longest([name], _broken(value, None if width is None else width - names), fillvalue="")
    ]
    return "\n".join(lines)


def _painted(line: str, tone: Tone) -> str:
    return f"\x1b[{_COLOURS[tone]}m{line}\x1b[39m" if tone else line
