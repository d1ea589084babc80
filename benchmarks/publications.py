"""Writes what a session of the lab found on the publications into docs/publications.md, between its marks.

On a machine that does nothing else, from the root of the checkout (5 minutes):

    .venv/bin/loadgen lab --only publications --out runs/publications
    .venv/bin/python -m benchmarks.publications runs/publications
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.formats.markdown import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "publications.md"
_BEGIN, _END = "<!-- lab: publications -->\n", "\n<!-- end: publications -->"


def filled(text: str, summary: Mapping[str, Any]) -> str:
    """The page with what stands between its marks written anew."""
    claims = [(c["source"], c["claim"], c["published"], c["brief"], c["verdict"]) for c in summary["claims"]]
    rows = table(("publication", "claim", "published", "here", "verdict"), claims, (0, 1, 2, 3, 4)).rstrip("\n")
    part = f"{_BEGIN}**{summary['answer']['sentence']}**\n\n{rows}{_END}"
    return re.sub(f"{_BEGIN}.*?{_END}", lambda _: part, text, flags=re.DOTALL)


def main(arguments: list[str]) -> None:
    """Write the page from the folder of one session."""
    if len(arguments) != 1:
        sys.exit("usage: python -m benchmarks.publications FOLDER")
    summary = json.loads((Path(arguments[0]) / "summary.json").read_text())
    PAGE.write_text(filled(PAGE.read_text(), summary))


if __name__ == "__main__":
    main(sys.argv[1:])
