"""Addresses, header fields and cookies."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.http.cookies import Jar, default_path, parse_cookie
from loadgen.http.message import BadRequestError, address_of, field_lines, redirected
from loadgen.language.values import UNDEFINED
from loadgen.vu.outcome import named_endpoint


@pytest.mark.parametrize(
    ("url", "origin", "target", "host"),
    [
        ("http://h", ("http", "h", 80), "/", "h"),
        ("HTTP://H:8080/a/../b?x=1#f", ("http", "h", 8080), "/b?x=1", "h:8080"),
        ("https://h:443/é ü", ("https", "h", 443), "/%C3%A9%20%C3%BC", "h"),
        ("http://[::1]:9/", ("http", "::1", 9), "/", "[::1]:9"),
        ("http://bücher.example/", ("http", "xn--bcher-kva.example", 80), "/", "xn--bcher-kva.example"),
        ("http://h//x%20y?a=%41 b", ("http", "h", 80), "//x%20y?a=%41%20b", "h"),
    ],
)
def test_urls_are_taken_apart(url, origin, target, host):
    address = address_of(url)
    assert (tuple(address.origin), address.target, address.host) == (origin, target, host)


@pytest.mark.parametrize("url", ["http://", "http://h:x/", "http://a b/", "http://h:99999/"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(BadRequestError, match="ERR_INVALID_URL"):
        address_of(url)


@given(st.text(max_size=40))
def test_any_path_gives_a_target_that_can_be_sent(path):
    try:
        target = address_of("http://h/" + path).target
    except BadRequestError:
        return
    assert target.isascii() and not any(c in target for c in " \r\n\t") and target.startswith("/")


def test_relative_locations_are_resolved():
    address = address_of("http://h:1/a/b?c")
    assert redirected(address, "d?e#f").target == "/a/d?e"
    assert tuple(redirected(address, "//x/y").origin) == ("http", "x", 80)
    for name, target in (("caf\u00e9".encode(), "/caf%C3%A9"), (b"caf\xe9", "/caf%C3%A9"), (b"%e9", "/%e9")):
        assert redirected(address, f"/{name.decode('latin-1')}").target == target


def test_header_fields_cannot_be_smuggled_in():
    assert field_lines("a", UNDEFINED) == []
    for name, value in (("a", "x\r\nb: 1"), ("a b", "x"), ("a", "\u20ac")):
        with pytest.raises(BadRequestError):
            field_lines(name, value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h:8080/users/{{ id }}", "/users/{{ id }}"),
        ("http://h:8080/a%20b?q", "/a b"),
        ("http://other.host:8080/x", "other.host/x"),
        ("http://h:9/", ":9/"),
        ("{{ url }}", "{{ url }}"),
    ],
)
def test_endpoints_are_named_by_what_differs_from_the_target(url, name):
    assert named_endpoint("http://h:8080", url, strip_query=True) == name


def jar(*fields, host="a.example", path="/x/y", now=1000.0):
    filled = Jar()
    for field in fields:
        filled.store(field, host, path, now)
    return filled


def test_cookies_go_back_to_their_host_and_path():
    kept = jar("a=1", "b=2; Path=/", "c=3; Domain=example; Path=/")
    assert kept.header("a.example", "/x/z?q", 1001, secure=False) == "a=1; b=2; c=3"
    assert kept.header("a.example", "/", 1001, secure=False) == "b=2; c=3"
    assert kept.header("b.example", "/", 1001, secure=False) == "c=3"
    assert kept.header("xample", "/", 1001, secure=False) == ""


def test_cookies_expire_and_are_removed():
    kept = jar("a=1; Max-Age=10; Path=/", "b=1; Expires=Thu, 01 Jan 1970 00:16:50 GMT; Path=/", "c=1; Path=/")
    assert kept.header("a.example", "/", 1005, secure=False) == "a=1; b=1; c=1"
    assert kept.header("a.example", "/", 1011, secure=False) == "c=1"
    kept.store("c=; Max-Age=0; Path=/", "a.example", "/", 1012)
    assert kept.header("a.example", "/", 1012, secure=False) == ""


@pytest.mark.parametrize(
    ("max_age", "kept"),
    [
        ("²", True),
        ("--5", True),
        ("", True),
        ("1e3", True),
        ("9" * 400, True),
        ("9" * 5000, True),
        ("-" + "9" * 5000, False),
    ],
)
def test_an_odd_age_is_ignored_or_endless_and_never_an_error(max_age, kept):
    assert jar(f"a=1; Max-Age={max_age}; Path=/").header("a.example", "/", 1e9, secure=False) == ("a=1" if kept else "")


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 01 Jan 1970 00:16:50",
        "Thu, 01-Jan-70 00:16:50 GMT",
        "Thu Jan 1 0:16:50 1970",
        "1 January 1970 00:16:50.5 +0200",
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_a_cookies_date_is_in_utc_whatever_its_zone_and_wherever_it_is_read(monkeypatch, date, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        kept = jar(f"a=1; Expires={date}; Path=/")
        assert [kept.header("a.example", "/", now, secure=False) for now in (1009.0, 1011.0)] == ["a=1", ""]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "date",
    [
        "",
        "01 Jan 1970",
        "31 Feb 1970 00:00:00 GMT",
        "01 Jan 1600 00:00:00 GMT",
        "01 Jan 1970 24:00:00",
        "1970-01-01T00:00:00Z",
        "²² Jan 1970 00:00:00",
    ],
)
def test_what_names_no_date_sets_no_end(date):
    assert jar(f"a=1; Expires={date}; Path=/").header("a.example", "/", 1e9, secure=False) == "a=1"


@given(st.text(max_size=40) | st.from_regex(r"a=b; ?(Max-Age|Expires|Path|Domain)=.{0,30}", fullmatch=True))
def test_no_field_of_a_server_ends_a_user(field):
    kept = jar(field)
    assert kept.header("a.example", "/", 1000.0, secure=True) in ("", "a=b")


@pytest.mark.parametrize(
    "location", ["//[", "http://[x]/", "http://a:99999/", "http://\ud800/", "/\ud800", "http://a\xad../"]
)
def test_a_location_that_is_no_url_is_refused(location):
    with pytest.raises(BadRequestError, match="ERR_INVALID_URL"):
        redirected(address_of("http://a.example/x"), location)


@given(st.text(max_size=30).map(lambda text: f"http://{text}") | st.text(max_size=30))
def test_any_location_leads_somewhere_or_is_refused(location):
    with suppress(BadRequestError):
        redirected(address_of("http://a.example/x"), location)


def test_secure_cookies_need_tls_and_newer_ones_replace_older():
    kept = jar("a=1; Secure; Path=/", "b=1; Path=/", "b=2; Path=/")
    assert kept.header("a.example", "/", 1001, secure=False) == "b=2"
    assert kept.header("a.example", "/", 1001, secure=True) == "a=1; b=2"


def test_cookies_for_others_and_broken_ones_are_ignored():
    for field in ("a=1; Domain=other.example", "nonsense", "=x", ""):
        assert parse_cookie(field, "a.example", "/", 0) is None


def test_a_cookie_without_path_belongs_to_its_folder():
    assert [default_path(p) for p in ("/", "/a", "/a/b", "/a/b/?x/y")] == ["/", "/", "/a", "/a/b"]
