"""Writes gates as JUnit XML, in the form that Jenkins, GitLab and GitHub's actions read.

A gate is a test case: failed with the measured figures as its message, passed with them as its output, and skipped where it
is optional and not met. Control, formatting and bidi characters are written as escapes, as are halves of surrogate pairs:
XML 1.0 has no way to write most of them (section 2.2), and a page that shows the others would obey them.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from reports.compare.gates import GateResult
from reports.printable import printable


def to_junit(command: str, results: Sequence[GateResult], seconds: float = 0.0) -> str:
    """Write the gates of one command, such as "loadgen run", as a document with one test suite; `seconds`: how long it took."""
    failed = sum(not result.met and not result.optional for result in results)
    skipped = sum(not result.met and result.optional for result in results)
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0"}
    suites = Element("testsuites", {"name": command, **counts, "time": f"{seconds:.3f}"})
    suite = SubElement(
        suites, "testsuite", {"name": command, **counts, "skipped": str(skipped), "time": f"{seconds:.3f}"}
    )
    for result in results:
        case = {"name": _text(result.rule), "classname": command.replace(" ", "."), "time": "0.000"}
        element = SubElement(suite, "testcase", case)
        if result.met:
            SubElement(element, "system-out").text = _text(result.line)
        elif result.optional:
            SubElement(element, "skipped", {"message": _text(result.line)})
        else:
            failure = SubElement(element, "failure", {"message": _text(result.line), "type": "gate"})
            failure.text = _text(result.line)
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _text(text: str) -> str:
    return printable(text, "\t\n\r")
