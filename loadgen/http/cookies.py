"""A virtual user's cookies, stored and sent as RFC 6265 says (5.3 and 5.4), without a public suffix list. No I/O.

The standard library's http.cookiejar needs request objects and protects against servers; a load generator needs neither.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

_LARGEST_COOKIE = 4096
"""The most characters of a cookie's name and value together, as in browsers (RFC 6265bis, 5.7)."""
_MOST_OF_A_DOMAIN, _MOST = 180, 3000
"""The most cookies of one domain and of all, as in browsers (RFC 6265, 6.1 asks for 50 and 3000)."""
_MAX_AGE = re.compile(r"-?[0-9]+")
"""A valid Max-Age (RFC 6265, 5.2.2). It is read as a float, so that a very long number is an endless age."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A stored cookie. It goes to the host `domain` and, unless `host_only`, to all hosts below it."""

    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    expires_s: float
    """When the cookie expires, in epoch seconds."""


class Jar:
    """The cookies of one virtual user, by domain, path and name. In every method, `now_s` is the time in epoch seconds."""

    __slots__ = ("_cookies", "_loose", "_of_domain", "dropped")

    def __init__(self, *, loose: bool = False) -> None:
        """With `loose`, cookies without a name are kept as well, as servers may send and browsers take them."""
        self._loose = loose
        self._cookies: dict[tuple[str, str, str], Cookie] = {}
        # The number of cookies by domain: servers may send thousands, so that they cannot be counted anew for each.
        self._of_domain: Counter[str] = Counter()
        self.dropped = 0
        """How many cookies were too large, or had to make room for newer ones."""

    def store(self, field: str, host: str, path: str, now_s: float) -> bool:
        """Store the cookie of a Set-Cookie field, from an answer of `host` to a request for `path`.

        Returns False for an invalid field. That changes nothing, nor does a cookie that breaks the promise of its name's prefix.
        """
        cookie = parse_cookie(field, host, path, now_s, loose=self._loose)
        if cookie is None:
            return False
        if not _keeps_prefix(cookie):
            return True
        key = (cookie.domain, cookie.path, cookie.name)
        if cookie.expires_s <= now_s:
            if key in self._cookies:
                self._drop(key)
        elif len(cookie.name) + len(cookie.value) > _LARGEST_COOKIE:
            self.dropped += 1
        else:
            self._of_domain[cookie.domain] += key not in self._cookies
            self._cookies[key] = cookie
            self._make_room(cookie.domain)
        return True

    def _drop(self, key: tuple[str, str, str]) -> None:
        del self._cookies[key]
        self._of_domain[key[0]] -= 1
        if not self._of_domain[key[0]]:
            del self._of_domain[key[0]]

    def _make_room(self, domain: str) -> None:
        """Drop the cookie that was stored first, if there are too many of this domain, or in all."""
        if self._of_domain[domain] > _MOST_OF_A_DOMAIN:
            self._drop(next(key for key in self._cookies if key[0] == domain))
            self.dropped += 1
        elif len(self._cookies) > _MOST:
            self._drop(next(iter(self._cookies)))
            self.dropped += 1

    def header(self, host: str, path: str, now_s: float, *, secure: bool) -> str:
        """The value of the Cookie field for a request to this host and path; empty without cookies. Longer paths come first."""
        path = path.partition("?")[0]
        found = [
            c
            for c in self._cookies.values()
            if (secure or not c.secure)
            and c.expires_s > now_s
            and _host_matches(c, host)
            and _path_matches(c.path, path)
        ]
        if len(found) > 1:
            found.sort(key=lambda c: -len(c.path))
        return "; ".join(f"{c.name}={c.value}" if c.name else c.value for c in found)


def parse_cookie(field: str, host: str, path: str, now_s: float, *, loose: bool = False) -> Cookie | None:
    """The cookie that a Set-Cookie field sets, or None where RFC 6265 says to ignore the field.

    With `loose`, a cookie may have no name.
    """
    pair, *attributes = field.split(";")
    name, equals, value = pair.partition("=")
    if loose and not name:
        name, equals, value = value.partition("=")
    if loose and not equals:
        name, value = "", name
    elif not equals or not name.strip():
        return None
    domain, cookie_path, secure, expires_s = "", "", False, inf
    max_age_s: float | None = None
    for attribute in attributes:
        key, _, setting = (part.strip() for part in attribute.partition("="))
        match key.lower():
            case "domain":
                domain = setting.lstrip(".").lower()
            case "path":
                cookie_path = setting
            case "secure":
                secure = True
            case "expires":
                expires_s = _date(setting, expires_s)
            case "max-age" if _MAX_AGE.fullmatch(setting):
                max_age_s = float(setting)
    if domain and domain != host and not host.endswith(f".{domain}"):
        return None
    if max_age_s is not None:
        expires_s = now_s + max_age_s if max_age_s > 0 else -inf
    return Cookie(
        name.strip(),
        value.strip(),
        domain or host,
        cookie_path if cookie_path.startswith("/") else default_path(path),
        not domain,
        secure,
        expires_s,
    )


def default_path(path: str) -> str:
    """The path of a cookie that names none (RFC 6265, 5.1.4): the folder of the request's path."""
    folder = path.partition("?")[0].rpartition("/")[0]
    return folder if folder.startswith("/") else "/"


_FIRST_YEAR = 1601
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE_WORD = re.compile(r"[^\t -/;-@\[-`{-~]+")
_DATE_PART = re.compile(
    rf"([0-9]{{1,4}})(?![0-9])(?::([0-9]{{1,2}}):([0-9]{{1,2}})(?![0-9]))?|({_MONTHS})", re.IGNORECASE
)
"""What a word of a date begins with: a number (a day or a year), a time, a month."""


def _date(setting: str, otherwise: float) -> float:
    """The instant that a cookie's date names, in UTC whatever zone it has (RFC 6265, 5.1.1); `otherwise` if it names none."""
    day = month = year = time = None
    for match in filter(None, map(_DATE_PART.match, _DATE_WORD.findall(setting))):
        number, minute, second, name = match.groups()
        if name is not None:
            month = month or name.lower()
        elif time is None and minute is not None and len(number) <= 2:
            time = int(number), int(minute), int(second)
        elif day is None and len(number) <= 2:
            day = int(number)
        elif year is None and len(number) >= 2:
            year = int(number)
    if day is None or month is None or year is None or time is None:
        return otherwise
    if year < 100:
        year += 1900 if year >= 70 else 2000
    try:
        date = datetime(year, 1 + _MONTHS.split("|").index(month), day, *time, tzinfo=UTC)
    except ValueError:
        return otherwise
    return date.timestamp() if year >= _FIRST_YEAR else otherwise


def _keeps_prefix(cookie: Cookie) -> bool:
    """Whether a cookie is what its name promises (RFC 6265bis, 4.1.3): `__Secure-` or `__Host-`."""
    if cookie.name.startswith("__Host-"):
        return cookie.secure and cookie.host_only and cookie.path == "/"
    return cookie.secure or not cookie.name.startswith("__Secure-")


def _host_matches(cookie: Cookie, host: str) -> bool:
    return host == cookie.domain or (not cookie.host_only and host.endswith(f".{cookie.domain}"))


def _path_matches(cookie_path: str, path: str) -> bool:
    return path == cookie_path or (
        path.startswith(cookie_path) and (cookie_path.endswith("/") or path[len(cookie_path)] == "/")
    )
