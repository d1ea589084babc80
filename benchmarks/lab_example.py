"""Writes what a session of the lab found into the documents: README.md between its marks, and docs/lab-example.md.

On a machine that does nothing else, from the root of the checkout (20 minutes):

    make lab ARGS=--full && mv "$(readlink -f runs/latest)" runs/full
    make lab && mv "$(readlink -f runs/latest)" runs/brief
    .venv/bin/python -m benchmarks.lab_example runs/full runs/brief

docs/lab-example.json keeps what README.md shows, so that a test can tell whether both say the same.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loadgen.lab.answer import StrategyFigures, people
from reports.blocks import percent
from reports.formats.markdown import table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXAMPLE = ROOT / "docs" / "lab-example.md"
KEPT = ROOT / "docs" / "lab-example.json"
_WIDTH = 40
"""Characters of the longest bar of the text picture."""


def filled(text: str, kept: Mapping[str, Any]) -> str:
    """README.md with what stands between its marks written anew."""
    strategies = [StrategyFigures(**row) for row in kept["strategies"]]
    claims = [(c["verdict"], c["claim"], c["published"], c["brief"]) for c in kept["claims"]]
    parts = {
        "sentence": f"**The answer, measured:** {kept['sentence']}",
        "picture": f"```text\n{picture(strategies)}```",
        "claims": table(("verdict", "claim", "published", "here"), claims, (0, 1, 2, 3)).rstrip("\n"),
    }
    for name, part in parts.items():
        begin, end = f"<!-- lab: {name} -->\n", f"\n<!-- end: {name} -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, put=f"{begin}{part}{end}": put, text, flags=re.DOTALL)
    return text


def picture(figures: list[StrategyFigures]) -> str:
    """The bars of the lab's page in characters: ░ as published, █ as measured."""
    most = max(max(row.published_per_s or 0.0, row.here_per_s or 0.0) for row in figures)
    return "\n".join(_lines(figures, most)) + "\n"


def _lines(figures: list[StrategyFigures], most: float) -> Iterator[str]:
    for users in dict.fromkeys(row.users for row in figures):
        yield f"requests per second, {people(users)}: ░ published, █ measured here"
        for row in figures:
            if row.users == users:
                yield f"  {row.strategy}"
                yield from _bar("░", row.published_per_s, row.published_failed, most)
                yield from _bar("█", row.here_per_s, row.here_failed, most)


def _bar(mark: str, per_s: float | None, failed: float | None, most: float) -> Iterator[str]:
    if per_s is not None:
        lost = f", {percent(failed)} failed" if failed else ""
        yield f"    {mark * max(1, round(_WIDTH * per_s / most))} {per_s:,.0f}{lost}"


def main(folders: list[str]) -> None:
    """Write the documents from the folders of a full session and a brief one."""
    if len(folders) != 2:
        sys.exit("usage: python -m benchmarks.lab_example FOLDER_OF_FULL FOLDER_OF_BRIEF")
    full, brief = map(Path, folders)
    summary = json.loads((full / "summary.json").read_text())
    kept = {
        "sentence": summary["answer"]["sentence"],
        "strategies": summary["answer"]["strategies"],
        "claims": [{key: c[key] for key in ("verdict", "claim", "published", "brief")} for c in summary["claims"]],
    }
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    README.write_text(filled(README.read_text(), kept))
    parts = [
        "# The lab's summaries on one machine\n\nBoth sessions ran on the machine that each describes at its end.\n"
    ]
    for command, folder in (("make lab ARGS=--full", full), ("make lab", brief)):
        text = re.sub(r"(?m)^#", "##", (folder / "summary.md").read_text())
        parts.append(f"# `{command}`\n\n{text}")
    EXAMPLE.write_text("\n".join(parts))
    shutil.copy(full / "answer.svg", ROOT / "docs" / "images" / "answer.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
