"""What counts as the application's own code, and what as a library's."""

import sys

import pytest

from poolbench import places


def code(path, text="pass"):
    return compile(text, str(path), "exec")


def test_packages_that_pip_put_into_a_folder_of_the_import_path_are_libraries(tmp_path, monkeypatch):
    record = tmp_path / "lib" / "urllib9-1.0.dist-info" / "RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("urllib9/__init__.py,sha256=x,1\nsix9.py,,\nurllib9-1.0.dist-info/RECORD,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "lib"), *sys.path])
    for name, kind in {
        "lib/urllib9/pool.py": places.LIBRARY,
        "lib/six9.py": places.LIBRARY,
        "lib/own.py": places.APPLICATION,
        "urllib9/own.py": places.APPLICATION,
        "app.py": places.APPLICATION,
    }.items():
        assert places.kind_of(code(tmp_path / name)) == kind, name


@pytest.mark.parametrize(
    ("direct_url", "kind"),
    [
        ('{"url": "file:///src", "dir_info": {}}', places.APPLICATION),
        ('{"url": "https://h/shop9.whl", "archive_info": {}}', places.LIBRARY),
        ("[", places.LIBRARY),
    ],
)
def test_an_application_that_pip_put_beside_its_libraries_is_the_application(tmp_path, monkeypatch, direct_url, kind):
    record = tmp_path / "shop9-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("shop9/__init__.py,sha256=x,1\n")
    record.with_name("direct_url.json").write_text(direct_url)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert places.kind_of(code(tmp_path / "shop9" / "views.py")) == kind


def test_symbolic_links_to_libraries_and_scripts_lead_to_no_application(tmp_path):
    """Tools link a project's environment, or single packages of it, to a common store."""
    store = tmp_path / "store" / "site-packages"
    store.mkdir(parents=True)
    (tmp_path / "environment").symlink_to(sys.prefix)
    (tmp_path / "packages").symlink_to(store)
    (tmp_path / "src").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "src")
    found = {
        name: places.kind_of(code(tmp_path / name))
        for name in ("environment/bin/gunicorn", "packages/six9.py", "linked/own.py")
    }
    assert found == {
        "environment/bin/gunicorn": places.LIBRARY,
        "packages/six9.py": places.LIBRARY,
        "linked/own.py": places.APPLICATION,
    }
