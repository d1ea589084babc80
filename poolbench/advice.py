"""What to change about a statement, with the names of its own tables and columns. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poolbench.surroundings import Index

_NAME = r'(?:"[^"]+"|[\w$]+)'
_PATH = rf"{_NAME}(?:\.{_NAME})*"
_WRITTEN = re.compile(rf"\s*(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+({_PATH})", re.IGNORECASE)
_READ = re.compile(rf"\bFROM\s+({_PATH})(?![\w$]|\s*\()", re.IGNORECASE)
_JOINED = re.compile(r"\bJOIN\b|\bFROM\s+[^()]*?,|\bFROM\s*\(", re.IGNORECASE)
_WHERE = re.compile(
    r"\bWHERE\b(.*?)(?:\b(?:GROUP\s+BY|ORDER\s+BY|LIMIT|OFFSET|FOR|UNION|RETURNING)\b|$)", re.IGNORECASE | re.DOTALL
)
_COMPARED = re.compile(
    rf"(?:{_NAME}\.)?({_NAME})\s*(?:=|<>|[<>]=?|!=|(?:NOT\s+)?(?:I?LIKE|IN|BETWEEN|IS)\b)", re.IGNORECASE
)
_PATTERN = re.compile(r"\b(?:I?LIKE)\b", re.IGNORECASE)
_PAGED = re.compile(r"\bOFFSET\b", re.IGNORECASE)
_WORDS = {"and", "or", "not", "null", "true", "false", "between"}
_MOST_COLUMNS = 3


def for_slow(text: str, indexes: Sequence[Index] = ()) -> str:
    """What to do about a slow statement, of which only the beginning may be known. indexes: those that the database has."""
    ways = []
    table, columns, written = _table(text), _compared(text), _WRITTEN.match(text)
    if written is not None and written[1].upper().startswith("DELETE"):
        ways.append(f"an index on the columns of other tables that refer to {table}")
    elif table and columns:
        is_pattern = bool(_PATTERN.search(text))
        there = None if is_pattern else _that_is_there(table, columns, indexes)
        if there is not None:
            ways.append(f"whether it uses the index on {table} ({', '.join(there.columns)}) that is there")
        else:
            kind = " (for LIKE with a % in front: one of pg_trgm)" if is_pattern else ""
            ways.append(f"an index on {table} ({', '.join(columns)}){kind}")
    elif _WHERE.search(text) or not text:
        ways.append("an index on what WHERE compares")
    if _PAGED.search(text):
        ways.append("pages by WHERE … > the last row seen, rather than by OFFSET")
    return f"EXPLAIN (ANALYZE, BUFFERS) it: {', '.join([*ways, 'fewer rows looked at'])}, or the result computed beforehand."


def for_repeated(text: str) -> str:
    """What to do about a statement that is executed again and again."""
    written = _WRITTEN.match(text)
    if written is not None:
        verb, table = " ".join(written[1].upper().split()), written[2]
        ways = {
            "INSERT INTO": "execute(insert(…), rows) with a list of rows, or add_all() before one flush",
            "UPDATE": f"{verb} {table} … FROM (VALUES …), or execute(update(…), rows)",
            "DELETE FROM": f"{verb} {table} WHERE … IN (…)",
        }
        return f"Write all rows of {table} with one statement: {ways[verb]}."
    table, columns = _table(text), _compared(text)
    some = f"WHERE {columns[0]} IN (…)" if table and columns else "WHERE … IN (…)"
    source = f" from {table}" if table else ""
    return f"Fetch all{source} with one statement: {some}, a join, GROUP BY for counts, selectinload() or joinedload()."


def _table(text: str) -> str:
    """The one table that a statement is about; "" if it is about several, or none is known."""
    written = _WRITTEN.match(text)
    if written is not None:
        return "" if written[1].upper().startswith("INSERT") else written[2]
    found = _READ.search(text)
    return "" if found is None or _JOINED.search(text) else found[1]


def _that_is_there(table: str, columns: Sequence[str], indexes: Sequence[Index]) -> Index | None:
    """The index that leaves nothing to gain from one on these columns: it begins with them, or leads to one row."""
    *schema, name = (each.strip('"').lower() for each in table.rsplit(".", maxsplit=1))
    asked = {each.lower() for each in columns}
    # A table without a schema may be any of those with that name.
    found: dict[str, Index | None] = {}
    for index in indexes:
        if index.table.lower() == name and index.schema.lower() in (schema or [index.schema.lower()]):
            own = [each.lower() for each in index.columns]
            is_it = set(own[: len(asked)]) == asked or (index.is_unique and asked.issuperset(own))
            found[index.schema] = index if is_it else found.get(index.schema)
    return next(iter(found.values())) if found and all(found.values()) else None


def _compared(text: str) -> list[str]:
    """The columns that its WHERE compares, each once, in order."""
    where = _WHERE.search(text)
    names = [] if where is None else [name.strip('"') for name in _COMPARED.findall(where[1])]
    return [name for name in dict.fromkeys(names) if name.lower() not in _WORDS and not name.isdecimal()][
        :_MOST_COLUMNS
    ]
