"""Reading by content, and writing whole files or none."""

import os
import subprocess
import sys
import threading
import time

import pytest

from reports.files import WriteError, check_writable, write_text
from reports.formats.artillery_json import to_json
from reports.formats.published import published
from reports.formats.read import load, read
from reports.model import ReportError
from tests.support.sample_reports import sample_report


def test_artillerys_json_is_known_whatever_its_name(tmp_path):
    (tmp_path / "report.txt").write_text("\ufeff" + to_json(sample_report()))

    assert load(tmp_path / "report.txt") == sample_report()


def test_abs_text_is_known_whatever_its_name(tmp_path, golden):
    (tmp_path / "report.json").write_text((golden / "ab" / "keep-alive.txt").read_text())

    assert load(str(tmp_path / "report.json")).extras.ab["keep_alive"] == 20


def test_a_published_experiment_is_named_by_its_id():
    assert load("published:B.1.c1") == published("B.1.c1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"hello", "of none of the known formats"),
        (b"\x00\xff\xfe", "it is not text"),
        (b'{"a": 1}', "of none of the known formats"),
    ],
)
def test_a_file_that_is_no_report_is_named_in_one_line(tmp_path, content, said):
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(ReportError, match=f"x: no report that can be read: {said}") as e:
        load(tmp_path / "x")
    assert "\n" not in str(e.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ReportError, match="nowhere: No such file or directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.json#" + "9" * 5000, "a" * 5000, "a" * 5000 + "#2"])
def test_a_name_that_is_too_long_is_one_line(name):
    with pytest.raises(ReportError, match=r"^[^\n]+: (No such file or directory|File name too long)$"):
        load(name)
    with pytest.raises(WriteError, match=r"^cannot write [^\n]+: File name too long$"):
        write_text(name.replace(".json", "a" * 300), "x")


def test_writing_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "a").write_text("old")

    write_text(tmp_path / "a", "new\r\n\u00fc")

    assert (tmp_path / "a").read_bytes() == b"new\r\n\xc3\xbc"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_link_keeps_pointing_where_it_points(tmp_path):
    (tmp_path / "b").symlink_to(tmp_path / "a")

    write_text(tmp_path / "b", "text")

    assert (tmp_path / "b").is_symlink() and (tmp_path / "a").read_text() == "text"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()

    write_text(tmp_path / "pipe", "text")

    reader.join()
    assert got == ["text"] and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("check", [check_writable, lambda path: write_text(path, "text")])
def test_a_missing_folder_is_one_line_naming_file_and_folder(tmp_path, check):
    path = tmp_path / "none" / "a"

    with pytest.raises(WriteError) as caught:
        check(path)
    assert str(caught.value) == f"cannot write {path}: there is no folder {path.parent}"


def test_a_folder_is_not_overwritten(tmp_path):
    with pytest.raises(WriteError, match="it is a folder"):
        write_text(tmp_path, "text")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(WriteError, match="no permission to write in"):
        write_text(tmp_path / "a", "text")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")

    def full_disk(self, content):
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    def interrupted(self, content):
        self.open("wb").close()
        raise KeyboardInterrupt

    for fails, raised in ((full_disk, WriteError), (interrupted, KeyboardInterrupt)):
        monkeypatch.setattr("pathlib.Path.write_bytes", fails)
        with pytest.raises(raised, match=r"cannot write .*/a: No space left on device" if fails is full_disk else "^$"):
            write_text(tmp_path / "a", "new")

        assert (tmp_path / "a").read_text() == "old" and list(tmp_path.iterdir()) == [tmp_path / "a"]


def loadgen(command):
    """Exit code, stdout and stderr of `loadgen COMMAND` in a shell, which `$loadgen` names."""
    environment = {**os.environ, "loadgen": f"{sys.executable} -m loadgen"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("$loadgen report {file} >&-", "cannot write the result: standard output is closed"),
        pytest.param(
            "$loadgen diff {file} {file} > /dev/full",
            "cannot write the result to standard output: No space left on device",
            marks=pytest.mark.slow,
        ),
        pytest.param("$loadgen report - <&-", "-: standard input is closed", marks=pytest.mark.slow),
        pytest.param(
            "$loadgen report /dev/null", "/dev/null: no report that can be read: it is empty", marks=pytest.mark.slow
        ),
        pytest.param("$loadgen report /tmp", "/tmp: Is a directory", marks=pytest.mark.slow),
        pytest.param("$loadgen report {file}#0", "the file holds 1 report, counted from 1", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line(golden, command, said):
    code, out, err = loadgen(command.format(file=golden / "wrk" / "plain.txt"))
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1


def test_what_the_terminals_character_set_lacks_is_a_question_mark(tmp_path):
    (tmp_path / "a.json").write_text(
        '{"aggregate": {"counters": {"é €": 4}, "summaries": {"http.response_time": {"max": 35.92}}}}'
    )
    code, out, err = loadgen(f"PYTHONIOENCODING=latin-1 $loadgen report {tmp_path}/a.json | iconv -f latin1 -t utf-8")
    assert (code, err) == (0, "") and " ?\n" in out and "é ?:" in out


@pytest.mark.parametrize("command", ["$loadgen report - < {file}", "cat {file} | $loadgen report <(cat)"])
def test_a_report_is_read_from_standard_input_and_from_a_pipe(golden, command):
    code, out, err = loadgen(command.format(file=golden / "wrk" / "plain.txt"))
    assert (code, err) == (0, "") and "http.requests:" in out


def test_a_file_without_end_is_left_in_time():
    with pytest.raises(ReportError, match="/dev/zero: larger than 256 MB"):
        load("/dev/zero")


def test_a_long_text_that_is_no_report_is_refused_soon():
    started = time.process_time()
    with pytest.raises(ReportError, match="of none of the known formats"):
        read(("x" * 99 + "\n") * 100_000, "x")
    assert time.process_time() - started < 10
