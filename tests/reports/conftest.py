"""Golden files: `pytest tests/reports --rewrite-golden` writes them anew; a person reads the change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import GOLDEN

REPORTS = GOLDEN / "reports"


@pytest.fixture(scope="session")
def golden() -> Path:
    return REPORTS


@pytest.fixture
def assert_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    def check(name: str, text: str) -> None:
        path = REPORTS / name
        if request.config.getoption("--rewrite-golden"):
            path.write_text(text, "utf-8", newline="")
        assert text == path.read_bytes().decode()

    return check
