"""What a click tells about its visitor, and no more: families instead of versions, a host instead of an address."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from ua_parser import parse_os, parse_user_agent

UNKNOWN = "Other"
_LONGEST_HEADER = 512  # of a header; what follows tells no more
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """Browser and platform by family, and the host of the referring page (None: typed in, or withheld)."""

    browser: str
    platform: str
    referrer: str | None


@lru_cache(maxsize=4096)
def visitor(user_agent: str, referrer: str) -> Visitor:
    """Read the two headers; never raises, whatever they hold. Parsing takes some 0.3 ms, hence the cache."""
    user_agent = user_agent[:_LONGEST_HEADER]
    browser, platform = parse_user_agent(user_agent), parse_os(user_agent)
    return Visitor(
        browser=_name(browser.family) if browser else UNKNOWN,
        platform=_name(platform.family) if platform else UNKNOWN,
        referrer=_host(referrer),
    )


def _name(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_LONGEST_NAME] or UNKNOWN


def _host(referrer: str) -> str | None:
    try:
        host = urlsplit(referrer[: 4 * _LONGEST_HEADER]).hostname
    except ValueError:
        return None
    return host[:255] if host and host.isprintable() else None
