"""What a report says of the machine and of the run."""

import pytest

from loadgen.environment import environment


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("http://me:secret@h.example:8080/api", "http://h.example:8080/api"),
        ("http://h", "http://h"),
        ("http://[x", "http://[x"),
        ("me:secret@[x", "[x"),
    ],
)
def test_the_target_is_told_without_a_password(target, told):
    assert environment("config: {}", target)["target"] == told


def test_without_a_run_there_is_neither_script_nor_target():
    assert environment().keys() & {"script", "target"} == set()


@pytest.mark.parametrize("variable", ["GITHUB_SHA", "CI_COMMIT_SHA"])
def test_a_job_of_a_ci_system_says_the_commit(monkeypatch, variable):
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        monkeypatch.delenv(name, raising=False)
    assert "commit" not in environment()
    monkeypatch.setenv(variable, "0123abcd")
    assert environment()["commit"] == "0123abcd"
