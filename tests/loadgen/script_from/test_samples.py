"""Values made up for schemas: each fits its schema, by the judgement of another library."""

import json
from contextlib import suppress
from time import process_time

import jsonschema
import pytest

from loadgen.script_from.draft import Unusable
from loadgen.script_from.references import References, beside, decoded
from loadgen.script_from.samples import NoSample, fits, sample

NONE = References("/doc", {}, lambda _: b"")
TREE = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "child": {"$ref": "#/tree"}}}
ENDLESS = {"type": "object", "required": ["child"], "properties": {"child": {"$ref": "#/endless"}}}


def references():
    root = {"tree": TREE, "endless": ENDLESS, "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}, "x/y": {"z~": {"const": 7}}}
    return References("/doc", root, lambda _: b"")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "minLength": 30},
        {"type": "string", "maxLength": 2},
        {"type": "string", "maxLength": 0},
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "uuid"},
        {"type": "string", "format": "email", "maxLength": 5},
        {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4,}$"},
        {"type": "string", "pattern": r"^\d{4}(-\d{2}){2}$"},
        {"type": "string", "pattern": r"^(cat|dog)s?\.\w+$"},
        {"type": "string", "pattern": "^[^a1-9]{2}x+$"},
        {"type": "string", "pattern": "^[a-z]*$", "minLength": 8},
        {"type": "string", "pattern": r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z\d@$!%*?&]{12,}$"},
        {"type": "string", "pattern": r"^(?!-)[a-z0-9-]{3,}$"},
        {"type": "string", "enum": ["b", "c"]},
        {"minimum": 5},
        {"minLength": 5, "maxLength": 9},
        {"enum": [None, 3]},
        {"const": {"a": 1}},
        {"type": "string", "example": 5, "default": "ok"},
        {"type": "string", "pattern": "^a+$", "example": "b"},
        {"type": "integer", "minimum": 5, "maximum": 7},
        {"type": "integer", "exclusiveMinimum": 5},
        {"type": "integer", "maximum": -3},
        {"type": "number", "minimum": 0.25, "maximum": 0.5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
        {"type": "integer", "minimum": 10, "multipleOf": 7},
        {"type": ["null", "string"]},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "uniqueItems": True},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["x"]}], "items": False},
        {"type": "array", "items": {"type": "integer", "minimum": 4}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "items": {"type": "string", "format": "uuid"}, "minItems": 2, "uniqueItems": True},
        {"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}},
        {"type": "string", "format": "email", "example": "nobody"},
        {"type": "string", "format": "date", "example": "January"},
        {"type": "number", "multipleOf": 0.5, "example": 0.3},
        {"allOf": [{"type": "string", "enum": ["a", "b"]}, {"enum": ["b"]}], "example": "a"},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {"a": {"type": "integer"}},
            "example": {"b": 1},
        },
        {"oneOf": [{"type": "integer"}, {"type": "boolean"}], "example": "no"},
        {"type": "object", "minProperties": 1, "properties": {"a": {"type": "integer"}}},
        {"required": ["a"], "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
        {"type": "object", "required": ["unknown"]},
        {
            "allOf": [
                {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
                {"required": ["b"], "properties": {"b": {"type": "string", "format": "date"}}},
            ]
        },
        {"oneOf": [{"type": "null"}, {"type": "object", "required": ["k"], "properties": {"k": {"const": "v"}}}]},
        {"properties": {"a": {"type": "integer"}}, "required": ["a"], "anyOf": [{"required": ["a"]}]},
        {},
    ],
)
def test_a_sample_fits_its_schema(schema):
    value = sample(schema, NONE)
    jsonschema.Draft202012Validator(schema).validate(value)
    assert fits(value, schema, NONE)


def test_the_numbers_of_openapi_3_0_may_be_exclusive_by_a_flag():
    assert sample({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, NONE) == 2
    assert sample({"type": "integer", "maximum": 1, "exclusiveMaximum": True}, NONE) == 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int", 1), ("Integer", 1), ("float", 1), ("bool", True), ("str", "text"), ("dict", {}), ("list", ["text"])],
)
def test_types_of_other_languages_are_understood(kind, value):
    assert sample({"type": kind, "items": {"type": "string"}}, NONE) == value


@pytest.mark.parametrize(
    "pattern", [r"^\p{Lu}\p{L}+$", r"^[\p{L}\p{N}_ ]{3,}$", r"^(?<first>[A-Z]+)-\p{Nd}{2}$", r"^\P{L}x$"]
)
def test_patterns_with_properties_of_unicode_and_named_groups_are_understood(pattern):
    schema = {"type": "string", "pattern": pattern}
    assert fits(sample(schema, NONE), schema, NONE)
    assert not fits("+", schema, NONE)


def test_schemas_that_contain_themselves_end():
    assert sample({"$ref": "/doc#/tree"}, references()) == {"name": "text"}
    assert sample({"$ref": "/doc#/x~1y/z~0"}, references()) == 7
    names = [f"n{number}" for number in range(8)]
    bush = {"type": "object", "required": names, "properties": {n: {"items": {"$ref": "/doc#/bush"}} for n in names}}
    assert sample({"$ref": "/doc#/bush"}, References("/doc", {"bush": bush}, lambda _: b"")).keys() == set(names)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "/doc#/endless"}, "child: child: "),
        ({"$ref": "/doc#/a"}, "leads in a circle"),
        ({"$ref": "/doc#/nowhere"}, "$ref #/nowhere leads nowhere"),
        ({"type": "string", "format": "binary"}, "it takes a file"),
        ({"type": "string", "pattern": r"^(?=x)y$"}, "no text was found that matches"),
        ({"type": "string", "pattern": "^(?=text)", "maxLength": 3}, "no text was found"),
        ({"type": "array", "minItems": 10**9, "items": {}}, "at least 1000000000 items"),
        ({"type": "string", "minLength": 10**9}, "at least 1000000000 characters"),
        ({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 5}, "no multiple of 5 in its range"),
    ],
)
def test_a_schema_without_a_sample_says_why(schema, why):
    with pytest.raises(NoSample) as reason:
        sample(schema, references())
    assert why in str(reason.value)


def test_a_pattern_that_cannot_be_read_binds_nothing():
    assert sample({"type": "string", "pattern": "("}, NONE) == "text"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a|a)*$", "example": "a" * 40 + "b", "maxLength": 50},
        {"type": "string", "pattern": "^(([A-Z0-9]+)+)+!$", "minLength": 5000},
        {"type": "string", "pattern": "((x{9999}){9999}){9999}"},
    ],
)
def test_a_pattern_that_takes_for_ever_is_given_up(schema):
    begun_s = process_time()
    for _ in range(5):
        with suppress(NoSample):
            sample(schema, NONE)
    assert process_time() - begun_s < 3


def test_values_with_templates_in_them_are_not_taken():
    assert sample({"type": "string", "example": "{{ name }}"}, NONE) == "text"


def test_aliases_of_aliases_take_no_time():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    found = References("/doc", decoded("\n".join(lines).encode(), "doc.yaml"), lambda _: b"")
    assert found.resolve({"$ref": "/doc#/a29"}) == {}


def test_yaml_is_read_as_json_would_have_it():
    value = decoded(b"a: 2024-01-15\nresponses: {200: {description: ok}}\n", "doc.yaml")
    found = References("/doc", value, lambda _: b"")
    assert found.resolve(value) == {"a": "2024-01-15", "responses": {"200": {"description": "ok"}}}


@pytest.mark.parametrize(
    ("location", "reference", "whole"),
    [
        ("/a/b/doc.yaml", "", "/a/b/doc.yaml"),
        ("/a/b/doc.yaml", "../c d/x.yaml", "/a/c d/x.yaml"),
        ("/a b/doc.yaml", "x.yaml", "/a b/x.yaml"),
        ("/a/doc.yaml", "http://h/x", "http://h/x"),
        ("http://h/a/doc.yaml", "x.yaml", "http://h/a/x.yaml"),
        ("http://h/a/doc.yaml", "/etc/passwd", "http://h/etc/passwd"),
    ],
)
def test_references_to_other_documents_begin_where_the_document_lies(location, reference, whole):
    assert beside(location, reference) == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: " + b"[" * 600 + b"]" * 600, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": %s}' % (b"9" * 5000), "not JSON: Exceeds the limit"),
        (b"a: %s" % (b"9" * 5000), "not YAML: Exceeds the limit"),
        (b"a: !!bool perhaps", "not YAML: 'perhaps'"),
    ],
)
def test_a_document_that_cannot_be_read_names_itself(content, said):
    with pytest.raises(Unusable, match=f"^a.doc: {said}"):
        decoded(content, "a.doc")


PETS = {
    "pet": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}},
            "discriminator": {"propertyName": "kind", "mapping": {"tabby": "#/cat"}}},
    "cat": {"allOf": [{"$ref": "/doc#/pet"}, {"type": "object", "required": ["lives"],
            "properties": {"lives": {"type": "integer"}}}]},
    "dog": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "/doc#/pet"}, {"kind": "tabby", "lives": 1}),
        ({"oneOf": [{"$ref": "/doc#/dog"}], "discriminator": {"propertyName": "kind"}}, {"kind": "dog"}),
        (
            {
                "oneOf": [{"$ref": "/doc#/dog"}],
                "discriminator": {"propertyName": "kind", "mapping": {"hound": "#/dog", "tabby": "#/cat"}},
            },
            {"kind": "hound"},
        ),
        (
            {"discriminator": {"propertyName": "kind"}, "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            {"kind": "a"},
        ),
    ],
)
def test_the_property_that_tells_schemas_apart_has_the_name_of_one(schema, value):
    assert sample(schema, References("/doc", PETS, lambda _: b"")) == value


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        ([], {"tabby": "#/cat"}),
        (5, {"tabby": "#/cat"}),
        ("kind", {"tabby": None}),
        ("kind", {"tabby": ["#/cat"]}),
        ("kind", []),
    ],
)
def test_a_discriminator_that_is_none_ends_nothing(name, mapping):
    pet = {**PETS["pet"], "discriminator": {"propertyName": name, "mapping": mapping}}
    assert "kind" in sample(pet, References("/doc", {**PETS, "pet": pet}, lambda _: b""))
    one = {"oneOf": [{"$ref": "/doc#/dog"}], "discriminator": {"propertyName": "kind"}}
    odd = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string", "enum": 5}}}
    assert sample(one, References("/doc", {"dog": odd}, lambda _: b"")) == {"kind": "dog"}


@pytest.mark.parametrize("index", ["²", "9" * 5000, "2", "x"])
def test_a_reference_to_what_no_list_has_leads_nowhere(index):
    with pytest.raises(NoSample, match="leads nowhere"):
        sample({"$ref": f"/doc#/list/{index}"}, References("/doc", {"list": [{}, {}]}, lambda _: b""))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_documents_in_the_usual_encodings_are_read(encoding):
    text = json.dumps({"openapi": "3.0.0", "title": "\u00e4"}, ensure_ascii=False)
    start = b"\xfe\xff" if encoding == "utf-16-be" else b""
    assert decoded(start + text.encode(encoding), "doc")["title"] == "\u00e4"


@pytest.mark.parametrize(
    "odd", [{"allOf": 1.5}, {"oneOf": True}, {"required": [[]]}, {"type": "object", "required": [{}, "name"]}]
)
def test_rules_that_no_schema_can_have_bind_nothing(odd):
    assert fits({"name": "Ann"}, odd, NONE)
