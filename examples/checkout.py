"""The functions of checkout.yml. Each is called for one virtual user at a time; none of them may wait for anything."""

import hashlib
import hmac
import json

from loadgen.processor import Fail, Request, Response, User

KEY = b"not a secret: an example"


def choose_pages(user: User) -> None:
    """Gives the user three pages to shorten."""
    start = user.variables["$uuid"]
    user.variables["pages"] = [f"https://example.com/{start}/{page}" for page in ("cart", "address", "payment")]


def pages_are_left(user: User) -> bool:
    """Asked after each round of the loop."""
    return bool(user.variables["pages"])


def sign(request: Request, user: User) -> None:
    """Makes the body of the request, and signs it."""
    body = json.dumps({"url": user.variables["pages"].pop()})
    request.body = body
    request.headers["content-type"] = "application/json"
    request.headers["x-signature"] = hmac.new(KEY, body.encode(), hashlib.sha256).hexdigest()


def short_path(response: Response, user: User) -> str:
    """The value of a capture."""
    if response.status != 201:
        raise Fail(f"no link ({response.status})")
    return "/" + response.json["code"]


def count_created(request: Request, response: Response, user: User) -> None:
    """Own metrics: a counter, and a summary."""
    user.count("links.created", 1)
    user.sample("links.body_bytes", len(request.body or b""))


def note(error: str, user: User) -> None:
    """Called once when a user of this scenario fails."""
    user.count(f"links.lost.{len(user.variables['pages'])}", 1)
