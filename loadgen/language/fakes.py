"""The functions of the fake-data plugin: the common ones of faker.js and the older `$rand...` aliases. Pure, given an rng."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any
from uuid import UUID

from loadgen.language.template import Function, characters
from loadgen.language.values import to_number

_FIRST = [
    "Ada", "Alan", "Anna", "Ben", "Carla", "Daniel", "Elena", "Emil", "Frank", "Grace", "Hana", "Ivan", "Julia",
    "Karl", "Lena", "Maria", "Nils", "Olga", "Paul", "Rosa",
]  # fmt: skip
_LAST = [
    "Adams", "Becker", "Castro", "Diaz", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jones", "Kowalski",
    "Larsen", "Meyer", "Novak", "Olsen", "Park",
]  # fmt: skip
_CITIES = [
    "Aarhus", "Bergen", "Bilbao", "Dresden", "Gdansk", "Ghent", "Graz", "Kyoto", "Leeds", "Lyon", "Malmo", "Porto",
    "Quito", "Tampere", "Turin", "Utrecht",
]  # fmt: skip
_COUNTRIES = [
    "Austria", "Belgium", "Brazil", "Canada", "Chile", "Denmark", "Finland", "France", "Ghana", "Italy", "Japan",
    "Kenya", "Norway", "Peru", "Spain",
]  # fmt: skip
_STREETS = [
    "Oak", "Maple", "Cedar", "Church", "Mill", "Station", "River", "Park", "Hill", "Lake",
]  # fmt: skip
_COLORS = [
    "red", "green", "blue", "orange", "yellow", "purple", "teal", "grey", "magenta", "silver",
]  # fmt: skip
_JOBS = [
    "Engineer", "Designer", "Analyst", "Architect", "Manager", "Planner", "Technician", "Consultant",
]  # fmt: skip
_GOODS = [
    "Chair", "Table", "Lamp", "Keyboard", "Shirt", "Bottle", "Bicycle", "Basket",
]  # fmt: skip
_MATERIALS = [
    "Wooden", "Steel", "Cotton", "Glass", "Rubber", "Granite",
]  # fmt: skip
_WORDS = [
    "alias", "amet", "aut", "bonus", "causa", "cura", "dolor", "ergo", "facio", "fides", "gratia", "hora", "ignis",
    "iter", "labor", "lorem", "lux", "magna", "mare", "mens", "nova", "omnis", "opus", "pax", "quod", "ratio",
    "salus", "tempus", "terra", "unda", "veritas", "vita", "vox",
]  # fmt: skip
_PASSWORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"  # noqa: S105 - an alphabet

_ALIASES = {
    "randEmail": "internetEmail",
    "randFullName": "personFullName",
    "randFirstName": "personFirstName",
    "randLastName": "personLastName",
    "randUserName": "internetUsername",
    "randPassword": "internetPassword",
    "randUuid": "stringUuid",
    "randPhoneNumber": "phoneNumber",
    "randCity": "locationCity",
    "randCountry": "locationCountry",
    "randStreetAddress": "locationStreetAddress",
    "randZipCode": "locationZipCode",
    "randCompanyName": "companyName",
    "randNumber": "numberInt",
    "randBoolean": "datatypeBoolean",
    "randUrl": "internetUrl",
    "randIp": "internetIpv4",
    "randWord": "loremWord",
    "randSentence": "loremSentence",
    "randParagraph": "loremParagraph",
    "randText": "loremText",
    "randJobTitle": "personJobTitle",
    "randColor": "colorHuman",
    "randProductName": "commerceProductName",
}


def fake_functions(options: Mapping[str, Any], rng: Random) -> dict[str, Function]:
    """Return the template functions by name (with `$`); `options` holds the plugin's options for each function."""
    makers = _makers(rng)

    def called(name: str) -> Function:
        maker = makers[name]
        given = options.get(name)
        settings = given if isinstance(given, Mapping) else {}
        return lambda *_: maker(settings)

    functions = {f"${name}": called(name) for name in makers}
    return functions | {f"${alias}": functions[f"${name}"] for alias, name in _ALIASES.items()}


def _clamped(given: Any, usual: float) -> float:
    """Return a number given as an option, limited to the range of exact integers; `usual` for anything that is no number."""
    value = usual if given is None else to_number(given)
    return min(max(value, -(2**53)), 2**53) if value == value else usual  # noqa: PLR0124 - NaN


def _makers(rng: Random) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    pick = rng.choice

    def sentence(words: int = 8) -> str:
        return " ".join(rng.choices(_WORDS, k=words)).capitalize() + "."

    def user_name() -> str:
        return f"{pick(_FIRST)}_{pick(_LAST)}{rng.randint(1, 99)}"

    def integer(o: Mapping[str, Any]) -> int:
        low, high = sorted(_clamped(o.get(key), usual) for key, usual in (("min", 0), ("max", 2**53 - 1)))
        return rng.randint(int(low), int(high))

    def text_of(o: Mapping[str, Any], usual: int) -> str:
        return "".join(rng.choices(_PASSWORD, k=characters(to_number(o.get("length", usual)))))

    return {
        "internetEmail": lambda _: f"{user_name()}@example.com".lower(),
        "internetUsername": lambda _: user_name(),
        "internetUserName": lambda _: user_name(),
        "internetPassword": lambda o: text_of(o, 15),
        "internetUrl": lambda _: f"https://{pick(_WORDS)}-{pick(_WORDS)}.example.com/",
        "internetDomainName": lambda _: f"{pick(_WORDS)}.example.com",
        "internetIpv4": lambda _: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
        "internetIp": lambda _: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
        "personFirstName": lambda _: pick(_FIRST),
        "personLastName": lambda _: pick(_LAST),
        "personFullName": lambda _: f"{pick(_FIRST)} {pick(_LAST)}",
        "personJobTitle": lambda _: f"{pick(('Senior', 'Junior', 'Lead', 'Chief'))} {pick(_JOBS)}",
        "phoneNumber": lambda _: f"{rng.randint(200, 999)}-555-{rng.randint(0, 9999):04d}",
        "locationCity": lambda _: pick(_CITIES),
        "locationCountry": lambda _: pick(_COUNTRIES),
        "locationStreetAddress": lambda _: f"{rng.randint(1, 999)} {pick(_STREETS)} Street",
        "locationZipCode": lambda _: f"{rng.randint(0, 99999):05d}",
        "companyName": lambda _: f"{pick(_LAST)} and {pick(_LAST)}",
        "commerceProductName": lambda _: f"{pick(_MATERIALS)} {pick(_GOODS)}",
        "colorHuman": lambda _: pick(_COLORS),
        "datatypeBoolean": lambda _: rng.random() < 0.5,
        "numberInt": integer,
        "numberFloat": lambda o: rng.uniform(_clamped(o.get("min"), 0), _clamped(o.get("max"), 1)),
        "stringUuid": lambda _: str(UUID(int=rng.getrandbits(128), version=4)),
        "stringAlphanumeric": lambda o: text_of(o, 1),
        "loremWord": lambda _: pick(_WORDS),
        "loremSentence": lambda _: sentence(),
        "loremParagraph": lambda _: " ".join(sentence() for _ in range(3)),
        "loremText": lambda _: " ".join(sentence() for _ in range(2)),
    }
