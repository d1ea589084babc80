"""Writes blocks as GitHub's Markdown. Charts are left out: they only show what tables and reports contain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from reports.blocks import ABSENT, Block, Cell, Charts, Code, Facts, Figures, Items, Page, Section, Table, Text
from reports.formats.markdown import escaped, table
from reports.printable import printable
from reports.writers.text import said


def to_markdown(page: Page) -> str:
    """Write the whole result. A single section gets no headings."""
    sections = said(page)
    alone = len(sections) == 1
    parts = [] if alone else [f"# {escaped(page.title)}", escaped(page.subtitle)]
    for section in sections:
        parts += [] if alone else [f"{'#' * section.level} {escaped(section.title)}", escaped(section.lead)]
        parts += _section(section)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> Iterator[str]:
    captions = sum(isinstance(block, Table) for block in section.blocks) > 1
    for (kind, _), some in groupby(section.blocks, lambda block: (type(block), getattr(block, "tone", ""))):
        if kind is Text:
            yield "  \n".join(_sentence(block) for block in some if isinstance(block, Text))
        else:
            yield from (_block(block, captions=captions) for block in some)


def _block(block: Block, *, captions: bool) -> str:
    match block:
        case Figures(items):
            figures = [f"{f.label}: {f.value}" + (f" ({f.note})" if f.note else "") for f in items]
            return _list([escaped(figure) for figure in figures])
        case Facts(caption, items):
            listed = _list([f"{escaped(name)}: {escaped(value)}" for name, value in items])
            return f"{escaped(caption)}:\n\n{listed}" if caption else listed
        case Items(items):
            return _list([_sentence(item) for item in items])
        case Table():
            parts = [f"*{escaped(block.caption)}*"] if captions else []
            return "\n\n".join([*parts, *_table(block), *([escaped(block.note)] if block.note else [])])
        case Code(caption, text):
            fence = "`" * max(3, 1 + max((len(run) for run in _backticks(text)), default=0))
            return f"{escaped(caption)}:\n\n{fence}\n{printable(text.strip(chr(10)), chr(10))}\n{fence}"
        case Text():
            return _sentence(block)
        case Charts():
            return ""


def _table(block: Table) -> Iterator[str]:
    """Write a table. Quiet rows come last and are folded away, as are folded columns, a line for each row."""
    if any(column.folded for column in block.columns):
        yield _rows(block, block.rows)
        told = _list([_in_detail(block, row) for row in block.rows])
        yield f"<details><summary>Each in detail</summary>\n\n{told}\n\n</details>"
        return
    if not block.quiet:
        yield _rows(block, block.rows)
        return
    loud = [row for row in block.rows if any(cell.tone for cell in row)]
    rest = [row for row in block.rows if row not in loud]
    if loud:
        yield _rows(block, loud)
    if rest:
        summary = f"<summary>{len(rest)} {escaped(block.quiet)}</summary>"
        yield f"<details>{summary}\n\n{_rows(block, rest)}\n\n</details>"


def _rows(block: Table, rows: Sequence[Sequence[Cell]]) -> str:
    shown = [i for i, column in enumerate(block.columns) if not (column.aside or column.folded)]
    left = [at for at, i in enumerate(shown) if block.columns[i].kind != "number"]
    headings = [escaped(block.columns[i].label) for i in shown]
    texts = [["-" if row[i].text == ABSENT else row[i].text for i in shown] for row in rows]
    return table(headings, texts, left).rstrip("\n")


def _in_detail(block: Table, row: Sequence[Cell]) -> str:
    """The folded cells of a row after the one that names it, the first of the kind "text"."""
    name = next(cell.text for column, cell in zip(block.columns, row, strict=True) if column.kind == "text")
    pairs = zip(block.columns, row, strict=True)
    told = [f"{escaped(column.label)}: {escaped(cell.text)}" for column, cell in pairs if column.folded]
    return f"{escaped(name)}.  \n  " + ".  \n  ".join(told)


def _sentence(block: Text) -> str:
    text = escaped(block.text)
    return f"**{text}**" if block.tone == "warn" else text


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _backticks(text: str) -> Iterator[str]:
    return ("".join(run) for mark, run in groupby(text) if mark == "`")
