"""The template functions of the fake-data plugin: those of faker.js, and the older `$rand...` names. Pure, given an rng.

Values come from Faker (PyPI) where it has them, and else from the short lists below: they are of the same kind and shape as
those of faker.js, not the same ones. As in a template of Artillery, an object is `[object Object]` and a date is a text.
"""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from faker import Factory

from loadgen.language.fake_lists import LISTS
from loadgen.language.template import Function, characters
from loadgen.language.values import text, to_number

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
_LARGEST = 2**53 - 1
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VIN = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
_ROMAN = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
    (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_OBJECTS = (
    "airlineAirline", "airlineAirplane", "airlineAirport", "financeCurrency", "locationLanguage",
    "scienceChemicalElement", "scienceUnit",
)  # fmt: skip


class _Options:
    """What the plugin's configuration says for one function: an object of options, a number or a text, or nothing."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._named = given if isinstance(given, Mapping) else {}

    def get(self, key: str) -> Any:
        return self._named.get(key)

    def number(self, key: str, usual: float) -> float:
        """A number given as an option, within the range of exact integers; `usual` for anything that is no number."""
        return _clamped(self._named.get(key), usual)

    def between(self, low: float, high: float) -> tuple[int, int]:
        """The options `min` and `max`, in order; a number alone is the maximum."""
        if self._given is not None and not self._named:
            high = _clamped(self._given, high)
        least, most = sorted((self.number("min", low), self.number("max", high)))
        return int(least), int(most)

    def amount(self, rng: Random, low: int, high: int, key: str = "length") -> int:
        """How much is asked for: a number, or one between the `min` and `max` of an option; else one between `low` and `high`."""
        asked = self._named.get(key, None if self._named and "min" not in self._named else self._given)
        if isinstance(asked, Mapping):
            least, most = sorted(_clamped(asked.get(end), usual) for end, usual in (("min", low), ("max", high)))
            return characters(rng.randint(int(least), int(most)))
        return rng.randint(low, high) if asked is None else characters(to_number(asked))


def _clamped(given: Any, usual: float) -> float:
    value = usual if given is None else to_number(given)
    return min(max(value, -(2**53)), 2**53) if value == value else usual  # noqa: PLR0124 - NaN


def fake_functions(options: Mapping[str, Any], rng: Random) -> dict[str, Function]:
    """Return the template functions by name (with `$`); `options` holds the plugin's options for each function."""
    makers = _Makers(rng).all()

    def called(name: str) -> Function:
        maker, settings = makers[name], _Options(options.get(name))
        return lambda *_: maker(settings)

    functions = {f"${name}": called(name) for name in makers}
    return functions | {f"${alias}": functions[f"${name}"] for alias, name in _ALIASES.items()}


def _js_date(instant: datetime) -> str:
    """An instant as JavaScript writes a Date as text, in UTC."""
    return f"{instant:%a %b %d %Y %H:%M:%S} GMT+0000 (Coordinated Universal Time)"


def _instant(given: Any, usual: datetime) -> datetime:
    try:
        if isinstance(given, int | float):
            return datetime.fromtimestamp(given / 1000, UTC)
        found = datetime.fromisoformat(text(given))
    except (ValueError, OverflowError, OSError):
        return usual
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _later(instant: datetime, days: float) -> datetime:
    """The instant so many days later; the same one where no calendar reaches that far."""
    try:
        return instant + timedelta(days=days)
    except OverflowError:
        return instant


class _Makers:
    """Makes values with one source of random numbers."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._faker: Any = Factory.create("en_US")
        self._faker.random = rng

    def all(self) -> dict[str, Callable[[_Options], Any]]:
        """Every function of faker.js that Artillery offers, by name."""
        from_lists = {name: self._one_of(words) for name, words in LISTS.items()}
        objects: dict[str, Callable[[_Options], Any]] = {name: lambda _: {} for name in _OBJECTS}
        return {
            **from_lists,
            **objects,
            **self._dates(),
            **self._numbers(),
            **self._strings(),
            **self._places(),
            **self._people(),
            **self._internet(),
            **self._words(),
            **self._colours(),
            **self._trade(),
            **self._technology(),
        }

    def _one_of(self, words: tuple[str, ...]) -> Callable[[_Options], str]:
        return lambda _: self._rng.choice(words)

    def _pick(self, name: str) -> str:
        return self._rng.choice(LISTS[name])

    def _some(self, alphabet: str, length: int) -> str:
        return "".join(self._rng.choices(alphabet, k=length))

    def _hex(self, length: int) -> str:
        return self._some("0123456789abcdef", length)

    def _fraction(self, low: float, high: float, digits: int) -> float:
        return round(self._rng.uniform(low, high), digits)

    def _price(self, o: _Options, high: float = 1000) -> str:
        digits = int(min(max(o.number("dec", 2), 0), 20))
        amount = self._rng.uniform(*sorted((o.number("min", 1), o.number("max", high))))
        return f"{text(o.get('symbol') or '')}{amount:.{digits}f}"

    def _dates(self) -> dict[str, Callable[[_Options], Any]]:
        def within(start_days: float, end_days: float, unit: str = "", days: float = 1) -> Callable[[_Options], str]:
            """An instant so many days from now, or from the option `refDate`; the option `unit` scales both by its days."""

            def make(o: _Options) -> str:
                now = _instant(o.get("refDate"), datetime.now(UTC))
                scale = o.number(unit, 1) * days if unit else 1
                return _js_date(_later(now, scale * self._rng.uniform(start_days, end_days)))

            return make

        def between(o: _Options) -> str:
            now = datetime.now(UTC)
            start, end = _instant(o.get("from"), now - timedelta(days=365)), _instant(o.get("to"), now)
            return _js_date(start + (end - start) * self._rng.random())

        def betweens(o: _Options) -> str:
            return ",".join(between(o) for _ in range(min(o.amount(self._rng, 3, 3, "count"), 1000)))

        def birthdate(o: _Options) -> str:
            low, high = o.between(18, 80)
            return _js_date(_later(datetime.now(UTC), -365.25 * self._rng.uniform(low, high + 1)))

        return {
            "dateAnytime": within(-365, 365),
            "datePast": within(-1, 0, "years", 365),
            "dateFuture": within(0, 1, "years", 365),
            "dateRecent": within(-1, 0, "days"),
            "dateSoon": within(0, 1, "days"),
            "dateBetween": between,
            "dateBetweens": betweens,
            "dateBirthdate": birthdate,
            "dateTimeZone": lambda _: self._faker.timezone(),
        }

    def _numbers(self) -> dict[str, Callable[[_Options], Any]]:
        def floating(o: _Options) -> float:
            digits = o.get("fractionDigits")
            low, high = sorted((o.number("min", 0), o.number("max", 1)))
            value = self._rng.uniform(low, high)
            return value if digits is None else round(value, int(_clamped(digits, 2)))

        def roman(o: _Options) -> str:
            left, out = min(max(self._rng.randint(*o.between(1, 3999)), 1), 3999), ""
            for value, letters in _ROMAN:
                out += letters * (left // value)
                left %= value
            return out

        def integer(form: str, high: int) -> Callable[[_Options], str]:
            return lambda o: format(self._rng.randint(*o.between(0, high)), form)

        return {
            "datatypeBoolean": lambda o: self._rng.random() < o.number("probability", 0.5),
            "numberInt": lambda o: self._rng.randint(*o.between(0, _LARGEST)),
            "numberBigInt": lambda o: self._rng.randint(*o.between(0, 999_999_999_999_999)),
            "numberFloat": floating,
            "numberBinary": integer("b", 1),
            "numberOctal": integer("o", 7),
            "numberHex": integer("x", 15),
            "numberRomanNumeral": roman,
        }

    def _strings(self) -> dict[str, Callable[[_Options], Any]]:
        rng = self._rng

        def made_of(alphabet: str, prefix: str = "", length: int = 1) -> Callable[[_Options], str]:
            def make(o: _Options) -> str:
                start = prefix if o.get("prefix") is None else text(o.get("prefix"))
                return start + self._some(alphabet, o.amount(rng, length, length))

            return make

        def ulid(_: _Options) -> str:
            at_ms = int(datetime.now(UTC).timestamp() * 1000)
            return "".join(_BASE32[at_ms >> shift & 31] for shift in range(45, -1, -5)) + self._some(_BASE32, 16)

        def from_characters(o: _Options) -> str:
            given = o.get("characters") or _LETTERS_AND_DIGITS
            return "".join(rng.choices([text(c) for c in given], k=o.amount(rng, 1, 1)))

        return {
            "stringAlpha": made_of(string.ascii_letters),
            "stringAlphanumeric": made_of(_LETTERS_AND_DIGITS),
            "stringBinary": made_of("01", "0b"),
            "stringOctal": made_of("01234567", "0o"),
            "stringHexadecimal": made_of("0123456789abcdef", "0x"),
            "stringNumeric": made_of(string.digits),
            "stringSample": made_of(_LETTERS_AND_DIGITS + _SYMBOLS, length=10),
            "stringNanoid": made_of(_LETTERS_AND_DIGITS + "_-", length=21),
            "stringSymbol": made_of(_SYMBOLS),
            "stringFromCharacters": from_characters,
            "stringUuid": lambda _: str(UUID(int=rng.getrandbits(128), version=4)),
            "stringUlid": ulid,
        }

    def _places(self) -> dict[str, Callable[[_Options], Any]]:
        fake = self._faker

        def coordinate(limit: float) -> Callable[[_Options], float]:
            return lambda o: self._fraction(o.number("min", -limit), o.number("max", limit), 4)

        return {
            "locationBuildingNumber": lambda _: fake.building_number(),
            "locationCity": lambda _: fake.city(),
            "locationCountry": lambda _: fake.country(),
            "locationCountryCode": lambda _: fake.country_code(),
            "locationLatitude": coordinate(90),
            "locationLongitude": coordinate(180),
            "locationNearbyGPSCoordinate": lambda _: [self._fraction(-90, 90, 4), self._fraction(-180, 180, 4)],
            "locationPostalAddress": lambda _: fake.address(),
            "locationSecondaryAddress": lambda _: fake.secondary_address(),
            "locationState": lambda _: fake.state(),
            "locationStreet": lambda _: fake.street_name(),
            "locationStreetAddress": lambda _: fake.street_address(),
            "locationTimeZone": lambda _: fake.timezone(),
            "locationZipCode": lambda _: fake.zipcode(),
        }

    def _people(self) -> dict[str, Callable[[_Options], Any]]:
        fake = self._faker
        return {
            "bookAuthor": lambda _: f"{fake.first_name()} {fake.last_name()}",
            "musicArtist": lambda _: f"{fake.first_name()} {fake.last_name()}",
            "personBio": lambda _: f"{self._pick('wordNoun')} {self._rng.choice(('enthusiast', 'fan', 'devotee'))}",
            "personFirstName": lambda _: fake.first_name(),
            "personFullName": lambda _: f"{fake.first_name()} {fake.last_name()}",
            "personJobTitle": lambda _: (
                f"{self._pick('personJobDescriptor')} {self._pick('personJobArea')} {self._pick('personJobType')}"
            ),
            "personLastName": lambda _: fake.last_name(),
            "personMiddleName": lambda _: fake.first_name(),
            "phoneImei": lambda _: "-".join(self._some(string.digits, n) for n in (2, 6, 6, 1)),
            "phoneNumber": lambda _: fake.numerify("%##-%##-####"),
        }

    def _internet(self) -> dict[str, Callable[[_Options], Any]]:
        fake, rng = self._faker, self._rng

        def name() -> str:
            return f"{fake.first_name()}{rng.choice('._')}{fake.last_name()}{rng.randint(1, 99)}"

        def email(o: _Options, domains: tuple[str, ...] = ("example.com", "example.net", "example.org")) -> str:
            return f"{name().lower()}@{text(o.get('provider') or rng.choice(domains))}"

        def token(_: _Options) -> str:
            at_s = int(datetime.now(UTC).timestamp())
            parts = {"alg": self._pick("internetJwtAlgorithm"), "typ": "JWT"}, {"iat": at_s, "sub": self._hex(32)}
            encoded = (
                base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).decode().rstrip("=")
                for part in parts
            )
            return ".".join((*encoded, self._some(_LETTERS_AND_DIGITS, 64)))

        return {
            "imageAvatar": lambda _: f"https://avatars.example.com/u/{rng.randint(1, 10**8)}",
            "imageAvatarGitHub": lambda _: f"https://avatars.example.com/u/{rng.randint(1, 10**8)}",
            "imageDataUri": lambda _: f"data:image/svg+xml;charset=UTF-8,%3Csvg%20id%3D%22{self._hex(6)}%22%2F%3E",
            "imagePersonPortrait": lambda _: f"https://images.example.com/person/512/{rng.randint(0, 99)}.jpg",
            "imageUrl": self._picture,
            "imageUrlLoremFlickr": self._picture,
            "imageUrlPicsumPhotos": self._picture,
            "internetDisplayName": lambda _: name(),
            "internetDomainName": lambda _: fake.domain_name(),
            "internetDomainSuffix": lambda _: fake.tld(),
            "internetDomainWord": lambda _: fake.domain_word(),
            "internetEmail": email,
            "internetEmoji": lambda _: fake.emoji(),
            "internetExampleEmail": email,
            "internetHttpMethod": lambda _: fake.http_method(),
            "internetHttpStatusCode": lambda _: fake.http_status_code(),
            "internetIp": lambda _: fake.ipv4(),
            "internetIpv4": lambda _: fake.ipv4(),
            "internetIpv6": lambda _: fake.ipv6(),
            "internetJwt": token,
            "internetMac": lambda _: ":".join(self._hex(2) for _ in range(6)),
            "internetPassword": lambda o: self._some(_LETTERS_AND_DIGITS + "_", o.amount(rng, 15, 15)),
            "internetPort": lambda _: rng.randint(0, 65535),
            "internetProtocol": lambda _: rng.choice(("http", "https")),
            "internetUrl": lambda o: f"{text(o.get('protocol') or 'https')}://{fake.domain_name()}",
            "internetUserAgent": lambda _: fake.user_agent(),
            "internetUsername": lambda _: name(),
        }

    def _picture(self, o: _Options) -> str:
        width, height = (int(o.number(side, self._rng.randint(100, 4000))) for side in ("width", "height"))
        return f"https://images.example.com/seed/{self._some(_LETTERS_AND_DIGITS, 8)}/{width}/{height}"

    def _words(self) -> dict[str, Callable[[_Options], Any]]:
        fake, rng = self._faker, self._rng

        def several(low: int, high: int, joint: str, make: Callable[[], str]) -> Callable[[_Options], str]:
            def made(o: _Options) -> str:
                count = min(o.amount(rng, low, high, "count"), 1000)
                return joint.join(make() for _ in range(count))

            return made

        def paragraph() -> str:
            return fake.paragraph(nb_sentences=3)  # type: ignore[no-any-return]

        def word() -> str:
            return self._pick(rng.choice(("wordAdjective", "wordNoun", "wordVerb", "wordAdverb")))

        return {
            "hackerPhrase": lambda _: (
                f"We need to {self._pick('hackerVerb')} the {self._pick('hackerAdjective')} "
                f"{self._pick('hackerAbbreviation')} {self._pick('hackerNoun')}!"
            ),
            "loremLines": several(1, 5, "\n", fake.sentence),
            "loremParagraph": lambda o: fake.paragraph(nb_sentences=min(o.amount(rng, 3, 3, "count"), 1000)),
            "loremParagraphs": several(3, 3, "\n", paragraph),
            "loremSentence": lambda o: fake.sentence(nb_words=min(o.amount(rng, 3, 10, "count"), 1000)),
            "loremSentences": several(2, 6, " ", fake.sentence),
            "loremSlug": several(3, 3, "-", fake.word),
            "loremText": lambda _: fake.paragraph(nb_sentences=5),
            "loremWord": lambda _: fake.word(),
            "loremWords": several(3, 3, " ", fake.word),
            "wordSample": lambda _: word(),
            "wordWords": several(1, 3, " ", word),
        }

    def _colours(self) -> dict[str, Callable[[_Options], Any]]:
        def parts(*limits: tuple[float, float, int]) -> Callable[[_Options], list[float]]:
            return lambda _: [self._fraction(*limit) for limit in limits]

        share = (0, 1, 2)
        return {
            "colorCmyk": parts(share, share, share, share),
            "colorColorByCSSColorSpace": parts((0, 1, 4), (0, 1, 4), (0, 1, 4)),
            "colorHsl": parts((0, 360, 0), share, share),
            "colorHuman": lambda _: self._faker.color_name().lower(),
            "colorHwb": parts((0, 360, 0), share, share),
            "colorLab": parts((0, 1, 6), (-100, 100, 4), (-100, 100, 4)),
            "colorLch": parts((0, 1, 6), (0, 230, 1), (0, 230, 1)),
            "colorRgb": lambda o: f"{text(o.get('prefix') or '#')}{self._hex(6)}",
            "vehicleColor": lambda _: self._faker.color_name().lower(),
        }

    def _trade(self) -> dict[str, Callable[[_Options], Any]]:
        fake, rng = self._faker, self._rng

        def product() -> str:
            kinds = ("commerceProductAdjective", "commerceProductMaterial", "commerceProduct")
            return " ".join(map(self._pick, kinds))

        def statement(_: _Options) -> str:
            return (
                f"{self._pick('financeTransactionType')} of {fake.currency_code()} {rng.uniform(1, 1000):.2f} at "
                f"{fake.company()} charged to account {self._some(string.digits, 8)}"
            )

        def digits(usual: int) -> Callable[[_Options], str]:
            return lambda o: self._some(string.digits, o.amount(rng, usual, usual))

        return {
            "commerceIsbn": lambda _: fake.isbn13(),
            "commercePrice": self._price,
            "commerceProductDescription": lambda _: f"{product()}, {fake.bs()}",
            "commerceProductName": lambda _: product(),
            "commerceUpc": lambda _: fake.ean(length=13)[1:],
            "companyBuzzPhrase": lambda _: fake.bs(),
            "companyCatchPhrase": lambda _: fake.catch_phrase(),
            "companyName": lambda _: fake.company(),
            "financeAccountNumber": digits(8),
            "financeAmount": self._price,
            "financeBic": lambda _: fake.swift(),
            "financeBitcoinAddress": lambda _: f"1{self._some(_BASE58, 33)}",
            "financeCreditCardCVV": lambda _: self._some(string.digits, 3),
            "financeCreditCardNumber": lambda _: fake.credit_card_number(card_type="visa16"),
            "financeCurrencyCode": lambda _: fake.currency_code(),
            "financeCurrencyName": lambda _: fake.currency_name(),
            "financeCurrencyNumericCode": lambda _: self._some(string.digits, 3),
            "financeEthereumAddress": lambda _: f"0x{self._hex(40)}",
            "financeIban": lambda _: fake.iban(),
            "financeLitecoinAddress": lambda _: f"L{self._some(_BASE58, 32)}",
            "financePin": digits(4),
            "financeRoutingNumber": lambda _: fake.aba(),
            "financeTransactionDescription": statement,
            "vehicleVehicle": lambda _: f"{self._pick('vehicleManufacturer')} {self._pick('vehicleModel')}",
            "vehicleVin": lambda _: self._some(_VIN, 17),
            "vehicleVrm": lambda _: fake.bothify("??##???").upper(),
            "airlineFlightNumber": lambda _: str(rng.randint(1, 9999)),
            "airlineRecordLocator": lambda _: self._some(string.ascii_uppercase, 6),
            "airlineSeat": lambda _: f"{rng.randint(1, 35)}{rng.choice('ABCDEF')}",
            "foodDescription": lambda _: (
                f"A {self._pick('foodAdjective')} {self._pick('foodDish')} with {self._pick('foodSpice')}."
            ),
        }

    def _technology(self) -> dict[str, Callable[[_Options], Any]]:
        fake, rng = self._faker, self._rng

        def message() -> str:
            return f"{self._pick('hackerVerb')} {self._pick('hackerAdjective')} {self._pick('hackerNoun')}"

        def committed() -> str:
            return f"{datetime.now(UTC) - timedelta(hours=rng.uniform(0, 24)):%a %b %d %H:%M:%S %Y} +0000"

        def commit(_: _Options) -> str:
            author = f"{fake.first_name()} {fake.last_name()}"
            lines = (
                f"commit {self._hex(40)}",
                f"Author: {author} <a@example.com>",
                f"Date: {committed()}",
                "",
                message(),
            )
            return "\r\n".join(lines) + "\r\n"

        def cron(_: _Options) -> str:
            limits = (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)
            return " ".join(rng.choice(("*", str(rng.randint(*limit)))) for limit in limits)

        def file_name(kind: str | None = None) -> Callable[[_Options], str]:
            return lambda _: fake.file_name(category=kind)

        return {
            "databaseMongodbObjectId": lambda _: self._hex(24),
            "gitBranch": lambda _: f"{self._pick('hackerNoun')}-{self._pick('hackerVerb')}".replace(" ", "-"),
            "gitCommitDate": lambda _: committed(),
            "gitCommitEntry": commit,
            "gitCommitMessage": lambda _: message(),
            "gitCommitSha": lambda o: self._hex(o.amount(rng, 40, 40)),
            "systemCommonFileExt": lambda _: fake.file_extension(),
            "systemCommonFileName": file_name(),
            "systemCron": cron,
            "systemFileExt": lambda _: fake.file_extension(),
            "systemFileName": file_name(),
            "systemFilePath": lambda _: fake.file_path(),
            "systemMimeType": lambda _: fake.mime_type(),
            "systemNetworkInterface": lambda _: f"{rng.choice(('eno', 'ens', 'eth', 'wlo'))}{rng.randint(0, 9)}",
            "systemSemver": lambda _: ".".join(str(rng.randint(0, 9)) for _ in range(3)),
        }
