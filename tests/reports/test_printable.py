"""No password of a URL is shown, whatever the URL stands in."""

import pytest

from reports.printable import shown_url, url_fault, without_credentials


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("serve --db postgresql://u:p@h/d --port 1", "serve --db postgresql://…@h/d --port 1"),
        ("serve postgresql://u:p@x:y@h/d redis://:p@r", "serve postgresql://…@h/d redis://…@r"),
        ("sh -c 'serve \"postgresql://u:p q@h/d\" -v'", "sh -c 'serve \"postgresql://…@h/d\" -v'"),
        ('sh -c "serve \\"postgresql://u:p q@h\\"" me@x', 'sh -c "serve \\"postgresql://…@h\\"" me@x'),
        (r"serve postgresql://u:p\ q@h/d me@x", "serve postgresql://…@h/d me@x"),
        ("serve postgresql://h/d?user=u&password=p&x=1", "serve postgresql://h/d?user=u&password=…&x=1"),
        ("serve --db-password pw --token=t\\ t --port 1", "serve --db-password … --token=… --port 1"),
        ("serve --password 'a b' --api-key \"k k\"", "serve --password … --api-key …"),
        ("serve --ask-password --port 1 --password-file f", "serve --ask-password --port 1 --password-file f"),
        ("curl http://{host}:{port}/ && mail me@x", "curl http://{host}:{port}/ && mail me@x"),
    ],
)
def test_a_command_is_shown_without_the_passwords_of_its_urls(command, shown):
    assert without_credentials(command) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:se cret@h:1/x", "https://…@h:1/x"),
        ("https://me:a@b/c@h", "https://…@h"),
        ("me:secret@h:3128", "…@h:3128"),
        ("https://h/x", "https://h/x"),
        ("shop", "shop"),
    ],
)
def test_what_was_given_as_a_url_is_shown_without_a_password(text, shown):
    assert shown_url(text) == shown


def test_nothing_is_quoted_of_a_url_with_a_password():
    error = ValueError("Port could not be cast to integer value as 'sec'")
    assert "sec'" not in url_fault(error, "http://u:sec/ret@h")
    assert url_fault(error, "http://h:sec") == str(error)
