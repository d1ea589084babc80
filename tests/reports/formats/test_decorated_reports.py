"""A report is the same however its text was kept: coloured, stamped by a CI, quoted, indented, twice, or cut off."""

import re
from dataclasses import asdict

import pytest

from reports.formats.read import load, read
from reports.model import ReportError

TEXTS = (
    "ab/ten-at-once.txt", "ab/some-non-2xx.txt", "artillery/run.txt", "hey/some-503.txt", "hey/refused.txt", "wrk/latency.txt",
    "wrk/plain.txt", "wrk/wrk2.txt", "others/artillery-1.txt", "others/autocannon.txt", "others/oha.txt", "others/vegeta.txt",
    "others/k6.txt", "others/k6-before-1.0.txt",
)  # fmt: skip
TABLES = ("locust/stats.csv", "others/locust-history.csv", "others/locust-failures.csv", "others/jmeter.jtl")


def each_line(text, change):
    return "".join(change(line) + "\n" for line in text.splitlines())


DECORATIONS = {
    "colours": lambda text: each_line(text, lambda line: re.sub(r"(\d+)", "\x1b[1;32m\\1\x1b[0m", line)),
    "GitHub": lambda text: each_line(text, lambda line: f"2026-11-29T10:00:01.1234567Z {line}"),
    "gh run view": lambda text: each_line(text, lambda line: f"bench\tRun load\t2026-11-29T10:00:01.1234567Z {line}"),
    "GitLab": lambda text: each_line(text, lambda line: f"2026-11-29T10:00:01.123456Z 00O {line}"),
    "Jenkins": lambda text: each_line(text, lambda line: f"10:00:01 {line}"),
    "Jenkins with a date": lambda text: each_line(text, lambda line: f"[2026-11-29T10:00:01.123Z] {line}"),
    "docker compose": lambda text: each_line(text, lambda line: f"load-1  | {line}"),
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a fence of Markdown": lambda text: f"# Result\n\nOn my machine:\n\n```console\n{text}```\n\nGood enough.\n",
    "indented in Markdown": lambda text: (
        "1. First run:\n\n" + each_line(text, lambda line: f"       {line}") + "\n2. Done\n"
    ),
    "quoted": lambda text: each_line(text, lambda line: f"> {line}"),
    "a prompt": lambda text: f"me@host:~$ cat result\n{text}",
    "prompts": lambda text: f"me@host:~$ load --the 'service'\n{text}me@host:~$ \n",
}


def figures(report):
    found = {}
    for name, summary in report.aggregate.summaries.items():
        found |= {(name, figure): value for figure, value in asdict(summary).items() if value is not None}
    found |= {(name, "rate"): rate.per_second for name, rate in report.aggregate.rates.items()}
    ab = (report.extras.ab if report.extras else None) or {}
    plain = {name: value for name, value in ab.items() if not isinstance(value, dict) and value not in (None, 0)}
    return found | plain | {name: count for name, count in report.aggregate.counters.items() if count}


@pytest.mark.parametrize("decoration", DECORATIONS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_decorated_text_is_the_same_report(golden, name, decoration):
    text = (golden / name).read_text()
    assert [figures(each) for each in read(DECORATIONS[decoration](text), "x")] == [
        figures(each) for each in read(text, "x")
    ]


@pytest.mark.parametrize("decoration", ["GitHub", "CRLF", "a fence of Markdown", "quoted", "a prompt"])
@pytest.mark.parametrize("name", TABLES)
def test_a_decorated_table_is_the_same_report(golden, name, decoration):
    text = (golden / name).read_text()
    assert [figures(each) for each in read(DECORATIONS[decoration](text), "x")] == [
        figures(each) for each in read(text, "x")
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_powershell_is_the_same_report(golden, tmp_path, name, encoding):
    text = (golden / name).read_text()
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "x").write_bytes(mark + text.encode(encoding))
    assert figures(load(tmp_path / "x")) == figures(read(text, "x")[0])


@pytest.mark.parametrize("between", ["", "\n", "me@host:~$ load --again\n", "```\n\nAnd once more:\n\n```\n"])
@pytest.mark.parametrize("name", TEXTS)
def test_two_texts_are_two_reports(golden, name, between):
    text = (golden / name).read_text()
    found = read(text + between + text, "x")
    (one,) = read(text, "x")
    assert [figures(each) for each in found] == [figures(one)] * 2


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_cut_off_is_refused_or_has_no_wrong_figure(golden, name):
    # A tool that met no errors does not print their distribution, so its absence shows nothing.
    text = (golden / name).read_text()
    text = text.partition("Error distribution:")[0] if "oha" in name else text
    whole = figures(read(text, "x")[0])
    lines = text.splitlines(keepends=True)
    for count in range(1, len(lines)):
        try:
            (found,) = read("".join(lines[:count]), "x")
        except ReportError:
            continue
        if not (found.extras and found.extras.partial):
            wrong = figures(found).items() - whole.items()
            assert not wrong, (count, wrong)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_cut_off_does_not_mix_with_the_next(golden, name):
    text = (golden / name).read_text()
    other = re.sub(r"(?<=[ :])([1-9])(\d*)", lambda match: f"{10 - int(match[1])}{match[2]}", text)
    whole = figures(read(text, "x")[0])
    lines = other.splitlines(keepends=True)
    for count in range(1, len(lines)):
        try:
            found = read("".join(lines[:count]) + text, "x")
        except ReportError:
            continue
        assert figures(found[-1]) == whole, count
