"""Reading by content, and writing whole files or none."""

import os
import threading

import pytest

from reports.files import WriteError, check_writable, write_text
from reports.formats.artillery_json import to_json
from reports.formats.published import published
from reports.formats.read import load
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

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(WriteError, match=r"cannot write .*/a: No space left on device"):
        write_text(tmp_path / "a", "new")

    assert (tmp_path / "a").read_text() == "old" and list(tmp_path.iterdir()) == [tmp_path / "a"]
