"""The functions of the fake-data plugin: names and kinds of values are Artillery 2.0.34's, shapes are what targets check."""

import json
import re
from random import Random

import pytest

from loadgen.language.fakes import fake_functions
from loadgen.language.values import text
from tests.support.paths import GOLDEN

BY_KIND = json.loads((GOLDEN / "fake_data.json").read_text())
"""The names of all functions that the real plugin has, by the kind of text that each gave."""
KINDS = {
    "boolean": r"true|false",
    "number": r"-?\d+(\.\d+)?(e-\d+)?",
    "object": r"\[object Object\]",
    "date": r"([A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d{4} \d\d:\d\d:\d\d GMT\+0000 \(Coordinated Universal Time\),?)+",
    "text": r"(?s).+",
}
SHAPES = {
    "$colorRgb": r"#[0-9a-f]{6}",
    "$commerceIsbn": r"978(-\d+){4}",
    "$commercePrice": r"\d+\.\d\d",
    "$databaseMongodbObjectId": r"[0-9a-f]{24}",
    "$financeBic": r"[A-Z0-9]{8}([A-Z0-9]{3})?",
    "$financeCreditCardNumber": r"4\d{15}",
    "$financeEthereumAddress": r"0x[0-9a-f]{40}",
    "$financeIban": r"[A-Z]{2}\d{2}[A-Z0-9]+",
    "$gitCommitSha": r"[0-9a-f]{40}",
    "$internetEmail": r"[\w.]+@example\.(com|net|org)",
    "$internetIpv4": r"(\d{1,3}\.){3}\d{1,3}",
    "$internetJwt": r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+",
    "$internetMac": r"([0-9a-f]{2}:){5}[0-9a-f]{2}",
    "$internetPassword": r"\w{15}",
    "$internetUrl": r"https://[\w.-]+",
    "$numberRomanNumeral": r"[MDCLXVI]+",
    "$stringHexadecimal": r"0x[0-9a-f]",
    "$stringUlid": r"[0-9A-HJKMNP-TV-Z]{26}",
    "$stringUuid": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "$systemCron": r"([\d*]+ ){4}[\d*]+",
    "$systemSemver": r"\d+\.\d+\.\d+",
    "$vehicleVin": r"[A-HJ-NPR-Z0-9]{17}",
}


def made(name, options=None, seed=1, times=20):
    functions = fake_functions({name: options} if options is not None else {}, Random(seed))
    return [text(functions[f"${name}"]()) for _ in range(times)]


def test_every_function_of_the_plugin_is_there():
    assert set(fake_functions({}, Random(1))) == {name for names in BY_KIND.values() for name in names}


@pytest.mark.parametrize(("kind", "names"), BY_KIND.items())
def test_values_are_of_the_plugins_kind(kind, names):
    functions = fake_functions({}, Random(2))
    odd = {
        name: value
        for name in names
        for _ in range(20)
        if not re.fullmatch(KINDS[kind], value := text(functions[name]()))
    }
    assert not odd


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_values_have_the_shape_that_a_target_checks(name, shape):
    assert all(re.fullmatch(shape, value) for value in made(name.removeprefix("$")))


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("numberInt", {"min": 3, "max": 5}, r"[345]"),
        ("numberInt", 1, r"[01]"),
        ("numberFloat", {"min": 2, "max": 3, "fractionDigits": 1}, r"2(\.\d)?|3"),
        ("stringAlpha", {"length": 8}, r"[A-Za-z]{8}"),
        ("stringAlpha", 4, r"[A-Za-z]{4}"),
        ("stringNumeric", {"length": {"min": 2, "max": 3}}, r"\d{2,3}"),
        ("stringFromCharacters", {"characters": ["x"], "length": 3}, r"xxx"),
        ("loremWords", 5, r"\w+( \w+){4}"),
        ("internetPassword", {"length": 20}, r"\w{20}"),
        ("internetEmail", {"provider": "mail.test"}, r"[\w.]+@mail\.test"),
        ("financeAmount", {"min": 5, "max": 6, "dec": 1, "symbol": "€"}, r"€[56]\.\d"),
        ("dateBetween", {"from": "2020-01-01T00:00:00.000Z", "to": "2020-01-31"}, r".* Jan \d\d 2020 .*"),
        ("datatypeBoolean", {"probability": 1}, r"true"),
    ],
)
def test_options_of_the_script_are_followed(name, options, shape):
    assert all(re.fullmatch(shape, value) for value in made(name, options))


@pytest.mark.parametrize(
    "options",
    [
        "odd",
        [],
        {"min": "x", "max": None, "length": "many", "count": {}},
        -1,
        {"min": 1e300, "max": -1e300, "years": 1e300},
        {"count": 1e300},
        True,
    ],
)
def test_odd_options_stop_nothing(options):
    everywhere = dict.fromkeys((name.removeprefix("$") for name in fake_functions({}, Random(1))), options)
    for function in fake_functions(everywhere, Random(1)).values():
        assert len(text(function())) <= 1_000_002  # a million, with a prefix such as 0b


def test_the_same_seed_gives_the_same_values():
    assert made("personFullName", seed=7) == made("personFullName", seed=7) != made("personFullName", seed=8)
