"""Which URLs and codes a link may have."""

import re

import pytest

from db import links

OWN = {("sho.rt", 443), ("127.0.0.1", 8000)}


@pytest.mark.parametrize("url", [
    "https://example.com", "http://example.com:8080/a?b=c#d", "HTTP://EXAMPLE.COM", "https://b\u00fccher.example/",
    "https://xn--fa-hia.de/", "http://192.0.2.1/", "http://[2001:db8::1]:80/", "http://127.0.0.1:8001/", "http://sho.rt:8080/",
    "http://localhost/", "http://foo.localhost:9/", "https://example.com/\u00e4", "https://a_b.example/",
    "http://0300.0250.1/", "http://1a.2b/", "http://[2001:db8::1]/",
])  # fmt: skip
def test_a_web_address_of_another_machine_or_port_may_be_a_link(url):
    assert links.url_problem(url, OWN) is None


@pytest.mark.parametrize(("url", "problem"), [
    ("https://example.com/" + "x" * 2048, "longer than 2048"),
    ("https://example.com/a b", "space"), ("https://example.com/\n", "control character"), ("https:\\\\a", "backslash"),
    ("http://a:b/", "not a URL"), ("http://[1/", "not a URL"), ("https://" + "a" * 64 + "/", "not a URL"),
    ("ftp://example.com/", "begin with"), ("http:/example.com", "begin with"), ("http:///x", "begin with"),
    ("http://%65xample.com/", "host"), ("http://[::1%25eth0]/", "host"), ("http://a*b/", "host"),
    ("http://[::1]x/", "host"), ("http://256.0.0.1/", "host"), ("http://1.2.3.4.5/", "host"), ("http://a.0x7g.08/", "host"),
    ("http://example.com:0/", "port 0"),
    ("http://me@example.com/", "credentials"),
])  # fmt: skip
def test_what_cannot_be_a_link_is_told_in_words(url, problem):
    assert problem in links.url_problem(url, OWN)


@pytest.mark.parametrize("host", [
    "localhost", "LOCALHOST", "localhost.", "foo.localhost", "a.b.localhost.", "ip6-localhost", "ip6-loopback", "127.0.0.1",
    "localhost.localdomain", "localhost6.localdomain6", "0x7f.1", "127.0.0.1.",
    "127.1", "127.255.255.254", "0x7f000001", "2130706433", "0177.0.0.1", "0", "0.0.0.0", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "\uff4cocalhost", "localhost\u3002",
])  # fmt: skip
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost", "LOCALHOST"])
def test_every_name_of_this_machine_is_this_service(host, bound):
    assert links.url_problem(f"http://{host}:8000/x", {(bound, 8000)}) == "points at this service"
    assert links.url_problem(f"http://{host}:8001/x", {(bound, 8000)}) is None


@pytest.mark.parametrize("url", ["https://sho.rt/x", "https://SHO.rt./x", "https://sho.rt:443/x", "http://sho.rt/x"])
def test_the_service_by_the_name_that_it_was_asked_by_is_this_service(url):
    assert links.url_problem(url, OWN) == "points at this service"


@pytest.mark.parametrize(("bound", "host"), [
    ("192.0.2.7", "0xC0000207"), ("192.0.2.7", "[::ffff:c000:207]"), ("2001:db8::7", "[2001:DB8:0:0::7]"),
])  # fmt: skip
def test_an_address_is_compared_as_an_address(bound, host):
    assert links.url_problem(f"http://{host}:80/", {(bound, 80)}) == "points at this service"


@pytest.mark.parametrize(
    "own", ["https://b\u00fccher.example/", "https://xn--bcher-kva.example/", "https://B\u00dcCHER.example./"]
)
@pytest.mark.parametrize("host", ["b\u00fccher.example", "xn--bcher-kva.example", "BU\u0308CHER.example\u3002"])
def test_a_name_is_the_same_in_letters_and_in_ascii(own, host):
    assert links.url_problem(f"https://{host}/x", {links.address_of(own)}) == "points at this service"


@pytest.mark.parametrize("host", [
    "fa\u00df.de", "FA\u1e9e.de", "\u03b2\u03cc\u03bb\u03bf\u03c2.com",
    # Cherokee, whose letters have other capitals since Unicode 8; a letter, a digit and an ideograph of later versions.
    "\u13a0.com", "\uab70.com", "\u1d42x.com", "\U0001fbf0.com", "\ufa70.com",
    # A variation selector, which browsers leave out, and characters that hold a dot.
    "a\U000e0100b.com", "a\u2024com", "\u2488com",
])  # fmt: skip
def test_a_host_that_browsers_read_as_another_domain_is_refused(host):
    assert "xn--" in links.url_problem(f"http://{host}/", OWN)


@pytest.mark.parametrize("text", ["https://sho.rt", "https://sho.rt/", "HTTP://sho.rt:8080/a/b"])
def test_a_base_ends_with_one_slash(text):
    assert links.base_url(text) == text.rstrip("/") + "/"


@pytest.mark.parametrize(
    "text", ["sho.rt", "ftp://sho.rt", "https://sho.rt/?a", "https://sho.rt/#a", "https://me@sho.rt", "https://"]
)
def test_a_base_is_a_plain_web_address(text):
    with pytest.raises(ValueError, match="URL without"):
        links.base_url(text)


@pytest.mark.parametrize("code", ["a", "A-z_9", "x" * 64])
def test_a_code_is_letters_digits_dashes_and_underscores(code):
    assert links.is_code(code)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "\u00e4", "a\n", "a\x00"])
def test_anything_else_is_no_code(text):
    assert not links.is_code(text)


def test_a_random_code_is_a_code_and_hardly_ever_the_same():
    codes = {links.random_code() for _ in range(1000)}
    assert len(codes) == 1000 and all(re.fullmatch("[A-Za-z0-9]{7}", code) for code in codes)
