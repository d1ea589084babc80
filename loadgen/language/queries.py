"""JMESPath queries. The library raises much besides its own errors: for a step of zero, an endless index, deep nesting."""

from __future__ import annotations

from typing import Any

import jmespath


class QueryError(ValueError):
    """Raised for a query that cannot be read, or not be asked of a document. The message is one line."""


def check(query: str) -> None:
    """Raises QueryError for a query that cannot be read."""
    try:
        jmespath.compile(query)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise _failure(error) from None


def search(query: str, document: Any) -> Any:
    """The result of a query. Raises QueryError."""
    try:
        return jmespath.search(query, document)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise _failure(error) from None


def _failure(error: Exception) -> QueryError:
    return QueryError(str(error).partition("\n")[0] or type(error).__name__)
