"""The rows of the doctor's benchmark: kept in a file, and written into the page only if they are of the code as it is."""

import shutil

from benchmarks import doctor
from reports import names
from reports.compare.diff import Change, Diff
from reports.compare.figures import ERRORS

P99 = f"{names.RESPONSE_TIME}.p99"


def test_the_page_has_the_rows_of_the_code_as_it_is_in_order(tmp_path, monkeypatch):
    page = tmp_path / "doctor.md"
    shutil.copy(doctor.PAGE, page)
    monkeypatch.setattr(doctor, "PAGE", page)
    code = doctor._code("leak")
    assert code != doctor._code("n_plus_one")
    row = {"seconds": 12, "example": ""}
    doctor.write(
        {
            "findings n_plus_one": {**row, "code": doctor._code("n_plus_one"), "line": "| n_plus_one | new | | | |"},
            "findings leak": {
                **row,
                "code": code,
                "line": "| leak | new | | | |",
                "example": "\n```\nan example\n```\n",
            },
            "findings starvation": {**row, "code": "of older code", "line": "| starvation | old | | | |"},
        }
    )
    text = page.read_text("utf-8")
    table = text.split("writes findings from here -->")[1].split("<!-- findings to here")[0]
    assert [line.split("|")[1].strip() for line in table.splitlines() if " new " in line] == ["leak", "n_plus_one"]
    assert "| old |" not in text and text.count("an example") == 1


def test_a_shorter_duel_needs_stronger_evidence_and_the_levels_of_all_add_up_to_5_percent():
    rows = (
        Change(ERRORS, "share", 0.0, 0.1, "worse", p=0.001),
        Change(P99, "summary", 900.0, 20.0, "better", p=0.03),
        Change(f"{names.RESPONSE_TIME}.p95", "summary", 900.0, 20.0, "better", p=0.001),
    )
    assert doctor.duel_verdicts(Diff(rows), 0.01) == ["worse: failures"]
    assert doctor.duel_verdicts(Diff(rows), 0.04) == ["better: p99", "worse: failures"]
    assert not doctor.duel_verdicts(Diff((Change(P99, "summary", 1.0, 1.0),)), 0.05)
    assert sum(level for _, level in doctor._LOOKS) <= 0.05 and doctor._LOOKS[-1][0] == 1
