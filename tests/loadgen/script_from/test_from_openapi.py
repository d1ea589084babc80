"""Scripts from OpenAPI documents: which requests they have, where the ids come from, and what is left out, and why."""

import pytest

from loadgen.script_from.captures import path_of
from loadgen.script_from.draft import Unusable
from loadgen.script_from.from_openapi import Asked, Choice, draft_from_api
from loadgen.script_from.openapi import environment_name, read_api
from loadgen.script_from.references import References
from loadgen.script_from.writer import script_text

TEXT = {"type": "string"}


def drafted(document, location="/api.json", ask=None, **choice):
    references = References(location, document, pytest.fail)
    api = read_api(document, "the document", location, references)
    return draft_from_api(api, references, Choice(api.target, **choice), ask)


def document(paths, **more):
    return {"openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "paths": paths, **more}


def get(*parameters, schema=None, **more):
    content = {"application/json": {"schema": schema}} if schema else {}
    return {"get": {"parameters": list(parameters), "responses": {"200": {"content": content}}, **more}}


def parameter(name, where="path", schema=TEXT, **more):
    return {"name": name, "in": where, "required": True, "schema": schema, **more}


def requests(draft):
    return [f"{step.method.upper()} {step.url}" for flow in draft.flows for step in flow.steps]


def reasons(draft):
    return {each.request: each.why for each in draft.left_out}


def test_ids_are_handed_down_from_list_to_list():
    users = {"type": "object", "properties": {"total": {"type": "integer"}, "data": {"type": "array", "items": {
        "type": "object", "properties": {"login": TEXT}}}}}  # fmt: skip
    notes = {"type": "array", "items": {"type": "object", "properties": {"note-id": {"type": "integer"}}}}
    draft = drafted(
        document({
            "/users/{username}/notes/{noteId}": get(parameter("username"), parameter("noteId")),
            "/users/{username}/notes": get(parameter("username"), schema=notes),
            "/users": get(schema=users),
        })
    )  # fmt: skip
    assert requests(draft) == [
        "GET /users",
        "GET /users/{{ username }}/notes",
        "GET /users/{{ username }}/notes/{{ noteId }}",
    ]
    first, second, third = draft.flows[0].steps
    assert [(c.path, c.variable) for c in first.captures] == [("$.data[0].login", "username")]
    assert [(c.path, c.variable) for c in second.captures] == [("$[0]['note-id']", "noteId")]
    assert third.needs == ["username", "noteId"]


def test_an_object_is_found_by_its_schema_and_ids_of_the_same_name_do_not_meet():
    schemas = {"Pet": {"type": "object", "properties": {"id": {"type": "integer"}}}}
    pets = {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}
    owners = {"type": "array", "items": {"type": "object", "properties": {"id": TEXT}}}
    draft = drafted(
        document(
            {
                "/pet/{id}": get(parameter("id"), schema={"$ref": "#/components/schemas/Pet"}),
                "/pet/findByStatus": get(parameter("status", "query", {"enum": ["sold"]}), schema=pets),
                "/owners/{id}": get(parameter("id")),
                "/owners": get(schema=owners),
            },
            components={"schemas": schemas},
        )
    )
    assert requests(draft) == [
        "GET /pet/findByStatus?status=sold",
        "GET /pet/{{ id }}",
        "GET /owners",
        "GET /owners/{{ owner_id }}",
    ]


def test_a_link_of_the_document_is_followed():
    made = {"operationId": "made", "responses": {"200": {"links": {
        "one": {"operationId": "read", "parameters": {"path.key": "$response.body#/result/0/name~1key"}}}}}}  # fmt: skip
    draft = drafted(document({"/last": {"get": made}, "/things/{key}": get(parameter("key"), operationId="read")}))
    assert requests(draft) == ["GET /last", "GET /last", "GET /things/{{ key }}"]
    assert draft.flows[1].steps[0].captures[0].path == "$.result[0]['name/key']"


def test_parameters_are_filled_and_optional_ones_left_away():
    draft = drafted(
        document({
            "/a/{day}/{kind}/{flag}": get(
                parameter("day", schema={"type": "string", "format": "date"}),
                parameter("kind", schema={"type": "string", "enum": ["x y", "z"]}),
                parameter("flag", schema={"type": "boolean"}),
                parameter("q", "query", example="a&b"),
                parameter("ids", "query", {"type": "array", "items": {"type": "integer", "example": 4}}),
                parameter("few", "query", {"type": "array", "items": TEXT}, explode=False, example=["c", "d"]),
                {"name": "page", "in": "query", "schema": {"type": "integer", "default": 3}},
                parameter("X-Tenant", "header", {"type": "string", "default": "acme"}),
                parameter("Accept", "header"),
                parameter("theme", "cookie", {"type": "string", "enum": ["dark"]}),
            )
        })
    )  # fmt: skip
    (step,) = draft.flows[0].steps
    assert step.url == "/a/2024-01-15/x%20y/true?q=a%26b&ids=4&few=c,d"
    assert step.headers == {"X-Tenant": "acme", "Cookie": "theme=dark"}


def test_what_is_no_status_among_the_answers_is_left_alone():
    draft = drafted(document({"/a": {"get": {"responses": {key: {} for key in ("2²", "9" * 5000, "20", "204")}}}}))
    assert draft.flows[0].steps[0].expect == [204]


def test_what_is_not_known_is_left_out_with_the_reason():
    listed = {"type": "array", "items": {"type": "object", "properties": {"size": TEXT}}}
    draft = drafted(
        document({
            "/ok": get(),
            "/a/{id}": get(parameter("id")),
            "/b": get(schema=listed),
            "/b/{bId}": get(parameter("bId")),
            "/c": get(parameter("cursor", "query")),
            "/d": get(parameter("X-Request-Id", "header")),
            "/e": {"get": {"$ref": "x", "parameters": [{"$ref": "#/lost"}]}},
            "/f/{x}": get(parameter("x", example="{{ x }}")),
            "/sessions/revoke": get(),
        })
    )  # fmt: skip
    assert requests(draft) == ["GET /ok", "GET /b"]
    assert reasons(draft) == {
        "GET /a/{id}": "no value is known for id: the document has no list that tells it",
        "GET /b/{bId}": "no value is known for bId: GET /b does not tell it",
        "GET /c": "no value is known for the parameter cursor",
        "GET /d": "no value is known for the header X-Request-Id",
        "GET /e": "$ref #/lost leads nowhere",
        "GET /f/{x}": "no value is known for x: the document has no list that tells it",
        "GET /sessions/revoke": "by its name it ends or changes something",
    }


def test_what_the_service_answers_counts_more_than_the_document():
    answers = {
        "/pets": Asked(200, {"pets": [{"uuid": "a-1"}]}),
        "/pets/a-1": Asked(203, {}),
        "/dead": Asked(error="ECONNRESET"),
        "/broken": Asked(503),
        "/none": Asked(200, []),
        "/moved": Asked(307, None, "/pets"),
        "/sso": Asked(302, None, "https://id.example/oauth2/start"),
    }
    asked = []

    def ask(path, headers):
        asked.append(path)
        return answers[path]

    paths = {f"/{name}": get() for name in ("pets", "dead", "broken", "none", "moved", "sso")}
    paths |= {"/pets/{petId}": get(parameter("petId", example="7")), "/none/{noneId}": get(parameter("noneId"))}
    draft = drafted(document(paths), ask=ask)
    assert requests(draft) == ["GET /pets", "GET /pets/{{ petId }}", "GET /none", "GET /moved"]
    assert sorted(asked) == sorted(answers)
    expected = {step.url: (step.expect, step.follow_redirect) for flow in draft.flows for step in flow.steps}
    assert expected["/pets/{{ petId }}"] == ((203,), True)
    assert expected["/moved"] == ((307,), False)
    assert reasons(draft) == {
        "GET /dead": "no answer (ECONNRESET)",
        "GET /broken": "answered 503",
        "GET /sso": "answered 302, to https://id.example/oauth2/start: it needs a session",
        "GET /none/{noneId}": "no value is known for noneId: GET /none answered an empty list",
    }


SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "appId"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "sid"},
    "oauth": {"type": "oauth2"},
}


@pytest.mark.parametrize(
    ("security", "header", "value"),
    [
        ("bearer", "Authorization", "Bearer {{ $processEnvironment.TOKEN }}"),
        ("oauth", "Authorization", "Bearer {{ $processEnvironment.TOKEN }}"),
        ("basic", "Authorization", "Basic {{ $processEnvironment.BASIC_AUTH }}"),
        ("key", "X-API-Key", "{{ $processEnvironment.API_KEY }}"),
        ("cookie", "Cookie", "sid={{ $processEnvironment.SID }}"),
    ],
)
def test_secrets_become_headers_from_the_environment(security, header, value):
    given = document({"/a": get()}, security=[{security: []}], components={"securitySchemes": SCHEMES})
    waiting = drafted(given)
    assert [(each.header, each.template, each.is_set) for each in waiting.secrets] == [(header, value, False)]
    assert f'# defaults: {{headers: {{{header}: "{value}"}}}}' in script_text(waiting)
    live = script_text(drafted(given, environment={waiting.secrets[0].variable: "s3cret"}))
    assert f'      {header}: "{value}"\n' in live
    assert "s3cret" not in live


def test_a_secret_in_the_query_and_one_that_is_only_a_parameter():
    components = {"securitySchemes": SCHEMES}
    given = document(
        {
            "/a": get(parameter("access_token", "query"), security=[{"query": []}]),
            "/b": get(security=[{"key": []}, {}]),
        },
        components=components,
    )
    draft = drafted(given, environment={"APP_ID": "1", "ACCESS_TOKEN": "2"})
    a, b = requests(draft)
    assert a == "GET /a?appId={{ $processEnvironment.APP_ID }}&access_token={{ $processEnvironment.ACCESS_TOKEN }}"
    assert b == "GET /b" and not draft.secrets
    assert requests(drafted(given))[0] == "GET /a"


@pytest.mark.parametrize(
    ("name", "variable"),
    [("Authorization", "TOKEN"), ("X-API-Key", "API_KEY"), ("apiKey", "API_KEY"), ("x-auth-token", "AUTH_TOKEN")],
)
def test_the_variable_of_a_secret_is_named_like_its_header(name, variable):
    assert environment_name(name) == variable


@pytest.mark.parametrize(
    ("more", "location", "target"),
    [
        ({"servers": [{"url": "https://h/v1/"}]}, "/api.json", "https://h/v1"),
        ({"servers": [{"url": "/v2"}]}, "http://h:81/docs/api.json", "http://h:81/v2"),
        ({"servers": [{"url": "../v3"}]}, "http://h/docs/api.json", "http://h/v3"),
        ({"servers": []}, "http://h/docs/api.json", "http://h"),
        ({"servers": [{"url": "/v2"}]}, "/api.json", "http://127.0.0.1:8000/v2"),
        ({"servers": [{"url": "https://h/{base}", "variables": {"base": {"default": ""}}}]}, "/api.json", "https://h"),
        ({}, "/api.json", "http://127.0.0.1:8000"),
        (
            {
                "servers": [
                    {"url": "https://{who}.h:{port}", "variables": {"who": {"default": "me"}, "port": {"enum": ["8"]}}}
                ]
            },
            "/api.json",
            "https://me.h:8",
        ),
    ],
)
def test_the_target_is_the_first_server(more, location, target):
    assert drafted(document({"/a": get()}, **more), location).target == target


def test_what_is_part_of_an_object_is_deleted_before_it():
    def made(schema):
        return {"post": {"responses": {"201": {"content": {"application/json": {"schema": schema}}}}}}

    shelf, book = ({"type": "object", "properties": {name: TEXT}} for name in ("shelfId", "bookId"))
    delete = {"responses": {"204": {}}}
    ids = [parameter("shelfId"), parameter("bookId")]
    paths = {
        "/shelves": made(shelf),
        "/shelves/{shelfId}": {"delete": {**delete, "parameters": ids[:1]}},
        "/shelves/{shelfId}/books": {"parameters": ids[:1], **made(book)},
        "/shelves/{shelfId}/books/{bookId}": {"delete": {**delete, "parameters": ids}},
    }
    made_and_deleted = [
        each.partition(" ")[0] + " " + each.count("/") * "/" for each in requests(drafted(document(paths), writes=True))
    ]
    assert made_and_deleted == ["POST /", "POST ///", "DELETE ////", "DELETE //"]


def test_a_value_with_a_slash_is_asked_for_as_the_script_will_send_it():
    asked = []

    def ask(path, headers):
        asked.append(path)
        return Asked(200, [{"name": "a/b c"}]) if path == "/plugins" else Asked(404)

    names = {"type": "array", "items": {"type": "object", "properties": {"name": TEXT}}}
    draft = drafted(document({"/plugins": get(schema=names), "/plugins/{name}": get(parameter("name"))}), ask=ask)
    assert asked == ["/plugins", "/plugins/a/b%20c"]
    assert reasons(draft) == {"GET /plugins/{name}": "answered 404"}


OWN_SERVER = {"servers": [{"url": "https://h/v1"}]}


@pytest.mark.parametrize(
    ("target", "expected"), [(None, "https://h/v1"), ("http://127.0.0.1:8000/", "http://127.0.0.1:8000")]
)
def test_servers_of_paths_alone_are_the_target_and_give_way_to_the_one_that_is_named(target, expected):
    paths = {"/a": {**get(), **OWN_SERVER}, "/b": {"get": {**get()["get"], **OWN_SERVER}}, "/c": get()}
    given = {"openapi": "3.1.0", "paths": {**paths, "/d": {**get(), "servers": [{"url": "https://other"}]}}}
    api = read_api(given, "api.json", "/api.json", References("/api.json", given, lambda _: b""), target)
    assert api.target == expected
    assert [(each.path, each.prefix) for each in api.operations] == [("/a", ""), ("/b", ""), ("/c", "")]
    assert [each.why for each in api.unreadable] == ["it is served by another host, other"]


def test_a_server_whose_path_only_begins_with_the_targets_letters_is_another_place():
    own = {**get(), "servers": [{"url": "https://h/v1beta"}]}
    given = document(
        {"/a": get(), "/b": own, "/c": {**get(), "servers": [{"url": "https://h/v1/new"}]}},
        servers=[{"url": "https://h/v1"}],
    )
    api = read_api(given, "api.json", "/api.json", References("/api.json", given, lambda _: b""), None)
    assert [(each.path, each.prefix) for each in api.operations] == [("/a", ""), ("/c", "/new")]
    assert [each.why for each in api.unreadable] == ["it is served beside the target, under /v1beta"]


def test_a_document_whose_gets_are_all_elsewhere_says_so():
    given = document({"/a": {**get(), "servers": [{"url": "https://other"}]}}, servers=[{"url": "https://h"}])
    with pytest.raises(Unusable, match=r"GET /a: it is served by another host, other"):
        drafted(given, named=True)


def test_swagger_2_is_read_as_well():
    item = {"type": "object", "properties": {"id": {"type": "integer"}}}
    given = {
        "swagger": "2.0", "host": "h:8", "basePath": "/v1", "schemes": ["http"], "definitions": {"Item": item},
        "securityDefinitions": {"key": {"type": "apiKey", "in": "header", "name": "api_key"}},
        "paths": {
            "/items": {
                "get": {"responses": {"200": {"schema": {"type": "array", "items": {"$ref": "#/definitions/Item"}}}}},
                "post": {"parameters": [{"in": "body", "name": "b", "schema": {"type": "object", "required": ["a"]}}],
                         "responses": {"201": {"schema": {"$ref": "#/definitions/Item"}}}},
            },
            "/items/{itemId}": {
                "parameters": [{"in": "path", "name": "itemId", "required": True, "type": "integer"}],
                "get": {"responses": {"200": {}}, "security": [{"key": []}]},
                "delete": {"responses": {"204": {}}},
            },
            "/form": {"post": {"responses": {"default": {}}, "parameters": [
                {"in": "formData", "name": "size", "required": True, "type": "integer", "minimum": 3}]}},
            "/file": {"post": {"responses": {}, "parameters": [
                {"in": "formData", "name": "f", "type": "file", "required": True}]}},
        },
    }  # fmt: skip
    reading = drafted(given)
    assert reading.target == "http://h:8/v1"
    assert requests(reading) == ["GET /items", "GET /items/{{ itemId }}"]
    writing = drafted(given, writes=True)
    assert requests(writing) == [
        "GET /items",
        "POST /items",
        "GET /items/{{ new_itemId }}",
        "DELETE /items/{{ new_itemId }}",
        "POST /form",
    ]
    assert writing.flows[0].steps[1].body == ("json", {"a": "text"})
    assert writing.flows[1].steps[0].body == ("form", {"size": 3})
    assert reasons(writing) == {"POST /file": "f: it takes a file"}


def test_nothing_is_changed_that_the_script_has_not_created():
    pets = {"type": "array", "items": {"type": "object", "properties": {"id": TEXT}}}
    one = get(parameter("id"))
    one["delete"] = one["put"] = {"parameters": [parameter("id", example="1")], "responses": {"200": {}}}
    draft = drafted(document({"/pets": get(schema=pets), "/pets/{id}": one}), writes=True)
    assert requests(draft) == ["GET /pets", "GET /pets/{{ id }}"]
    assert set(reasons(draft).values()) == {"it would change something that this script has not created (id)"}


def test_many_operations_become_scenarios_of_a_dozen_up_to_a_limit():
    draft = drafted(document({f"/a/b{n}": get(tags=["all"]) for n in range(30)}), limit=26)
    assert [(flow.name, len(flow.steps)) for flow in draft.flows] == [("all 1", 12), ("all 2", 12), ("all 3", 2)]
    assert draft.notes == ["Not in this script: 4 operations beyond --limit 26."]
    assert [step.think_s for step in draft.flows[2].steps] == [1.0, 0.0]


def test_a_document_without_a_request_is_told_with_the_first_reasons():
    paths = {"/a/{id}": get(parameter("id")), "/b": {"post": {}}}
    with pytest.raises(
        Unusable, match=r"no operation of T can be requested: GET /a/\{id\}: no value .*; 1 operation may ch"
    ):
        drafted(document(paths))


@pytest.mark.parametrize(
    ("answer", "wanted", "kind", "collection", "path"),
    [
        ([{"id": 1}], "petId", "integer", "pets", "$[0].id"),
        ([{"pet_id": 1, "id": 2}], "petId", "integer", "pets", "$[0].pet_id"),
        ([{"_id": "x"}], "id", "string", "pets", "$[0]._id"),
        ([{"id": 5, "login": "me"}], "org", "string", "orgs", "$[0].login"),
        ([{"id": 5, "name": "me"}], "pet", "string", "pets", "$[0].id"),
        ({"meta": {"ids": ["x"]}, "pets": [{"id": "a"}]}, "petId", "string", "pets", "$.pets[0].id"),
        ({"data": {"items": [{"key": "a"}]}}, "key", "string", "pets", "$.data.items[0].key"),
        (["a", "b"], "name", "string", "templates", "$[0]"),
        ([{"id": "has a / in it"}], "id", "string", "pets", None),
        ([{"id": {"nested": 1}}], "id", "string", "pets", None),
        ([{"id": "abc"}], "id", "integer", "pets", None),
        ([{"id": True}], "id", "string", "pets", None),
        ([], "id", "string", "pets", None),
        ({"id": 1}, "petId", "integer", "pets", None),
        (None, "id", "string", "pets", None),
    ],
)
def test_ids_are_found_in_lists(answer, wanted, kind, collection, path):
    assert path_of(answer, wanted, kind, collection, is_list=True) == path


@pytest.mark.parametrize(
    "text", ["yes", "1e3", "0o17", "010", "1:30", "2024-01-15", "~", "a: b", "a #b", " a", "null", "-", "é"]
)
def test_texts_stay_texts_in_the_script(text):
    from loadgen.script.yaml_reader import read_yaml

    schema = {"type": "object", "required": ["t"], "properties": {"t": {"type": "string", "example": text}}}
    posted = {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}, "responses": {"200": {}}}}
    read = read_yaml("x.yml", script_text(drafted(document({"/a": posted}), writes=True))).value
    assert read["scenarios"][0]["flow"][0]["post"]["json"] == {"t": text}


def test_a_document_without_any_get_gives_posts_to_a_host_that_was_named():
    given = document({"/sum": {"post": {}}, "/all": {"delete": {}}})
    with pytest.raises(Unusable, match="--writes adds them"):
        drafted(given)
    draft = drafted(given, named=True)
    assert requests(draft) == ["POST /sum"]
    assert "The document has no GET: this script makes POSTs, which may change something." in draft.notes
    assert requests(drafted(document({"/sum": {"post": {}}, "/a": get()}), named=True)) == ["GET /a"]


LIST = {"type": "array", "items": {"type": "integer"}, "example": [3, 4]}
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": TEXT}, "example": {"a": 1, "b": "x y"}}


@pytest.mark.parametrize(
    ("schema", "style", "url"),
    [
        (LIST, {}, "/q?p=3&p=4"),
        (LIST, {"explode": False}, "/q?p=3,4"),
        (LIST, {"style": "spaceDelimited", "explode": False}, "/q?p=3%204"),
        (LIST, {"style": "pipeDelimited", "explode": False}, "/q?p=3|4"),
        (OBJECT, {}, "/q?a=1&b=x%20y"),
        (OBJECT, {"explode": False}, "/q?p=a,1,b,x%20y"),
        (OBJECT, {"style": "deepObject", "explode": True}, "/q?p[a]=1&p[b]=x%20y"),
    ],
)
def test_query_parameters_are_written_in_their_style(schema, style, url):
    assert requests(drafted(document({"/q": get(parameter("p", "query", schema, **style))}))) == [f"GET {url}"]


def test_a_query_parameter_may_be_a_text_of_json():
    content = {"application/json": {"schema": OBJECT}}
    given = {"name": "p", "in": "query", "required": True, "content": content}
    assert requests(drafted(document({"/q": get(given)}))) == ["GET /q?p=%7B%22a%22:%201,%20%22b%22:%20%22x%20y%22%7D"]


@pytest.mark.parametrize(
    ("style", "explode", "url"),
    [
        ("simple", False, "/p/3,4"),
        ("label", False, "/p/.3,4"),
        ("label", True, "/p/.3.4"),
        ("matrix", False, "/p/;ids=3,4"),
        ("matrix", True, "/p/;ids=3;ids=4"),
    ],
)
def test_path_parameters_are_written_in_their_style(style, explode, url):
    given = parameter("ids", schema=LIST, style=style, explode=explode)
    assert requests(drafted(document({"/p/{ids}": get(given)}))) == [f"GET {url}"]


def test_swagger_2_joins_lists_in_four_ways():
    def listed(way):
        return {"name": "p", "in": "query", "required": True, "type": "array", "items": {"type": "integer", "example": 3},
                "collectionFormat": way, "x-example": [3, 4]}  # fmt: skip

    ways = {"csv": "3,4", "ssv": "3%204", "tsv": "3%094", "pipes": "3|4", "multi": "3&p=4"}
    paths = {f"/{way}": {"get": {"parameters": [listed(way)]}} for way in ways}
    draft = drafted({"swagger": "2.0", "paths": paths})
    assert requests(draft) == [f"GET /{way}?p={text}" for way, text in ways.items()]


def posted(content, *, required=True):
    return document({"/a": {"post": {"requestBody": {"required": required, "content": content}}}})


FIELDS = {
    "type": "object",
    "required": ["a"],
    "properties": {"a": TEXT, "file": {"type": "string", "format": "binary"}},
}


@pytest.mark.parametrize(
    ("content", "body", "headers"),
    [
        ({"application/vnd.api+json": {"schema": OBJECT}}, ("json", OBJECT["example"]), "application/vnd.api+json"),
        ({"*/*": {"schema": OBJECT}}, ("json", OBJECT["example"]), None),
        ({"multipart/form-data": {"schema": FIELDS}}, ("formData", {"a": "text"}), None),
        ({"multipart/form-data": {"schema": {**FIELDS, "example": {"a": [1, 2]}}}}, ("formData", {"a": "text"}), None),
        ({"text/plain": {"schema": {"type": "string", "minLength": 6}}}, ("body", "textxx"), "text/plain"),
        ({"application/xml": {"example": "<a/>"}}, ("body", "<a/>"), "application/xml"),
        (
            {"application/xml": {"schema": TEXT}, "application/json": {"schema": OBJECT}},
            ("json", OBJECT["example"]),
            None,
        ),
    ],
)
def test_bodies_of_several_kinds(content, body, headers):
    (step,) = drafted(posted(content), writes=True).flows[0].steps
    assert step.body == body
    assert step.headers == ({} if headers is None else {"Content-Type": headers})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"multipart/form-data": {"schema": {**FIELDS, "required": ["file"]}}}, "file: it takes a file"),
        ({"application/xml": {"schema": OBJECT}}, "its body is application/xml, of which the document has no example"),
        ({"application/octet-stream": {}}, "its body is application/octet-stream"),
    ],
)
def test_bodies_that_cannot_be_made_up(content, why):
    assert reasons(drafted({**posted(content), "paths": {**posted(content)["paths"], "/ok": get()}}, writes=True)) == {
        "POST /a": why
    }


def test_a_path_parameter_that_nothing_tells_is_tried_on_the_service():
    given = document(
        {"/a/{slug}": get(parameter("slug")), "/b/{slug}": get(parameter("slug")), "/c/{x}": get(parameter("x"))}
    )
    answers = {"/a/text": Asked(200, {}), "/b/text": Asked(404)}
    draft = drafted(given, ask=lambda path, _: answers.get(path, Asked(400)))
    assert requests(draft) == ["GET /a/text"]
    assert reasons(draft)["GET /b/{slug}"] == "no value is known for slug: the document has no list that tells it"


def test_an_empty_default_stands_for_none():
    empty = {"type": "string", "default": ""}
    given = document({"/a/{slug}": get(parameter("slug", schema=empty), parameter("q", "query", empty))})
    assert requests(drafted(given, ask=lambda *_: Asked(200, {}))) == ["GET /a/text?q=text"]


def test_a_parameter_of_a_path_may_be_written_with_a_colon():
    listed = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}}
    draft = drafted(document({"/users": get(schema=listed), "/users/:id": get(), "/users/{id}:check": get()}))
    assert requests(draft) == ["GET /users", "GET /users/{{ id }}", "GET /users/{{ id }}:check"]


@pytest.mark.parametrize("version", ["3.0.0", "3.1.1", "3.2.0"])
def test_every_version_of_openapi_3_is_read(version):
    assert requests(drafted({**document({"/a": get()}), "openapi": version})) == ["GET /a"]


def test_nothing_is_made_up_for_the_path_of_a_post_which_is_not_asked():
    given = document({"/ok": get(), "/a/{n}": {"post": {"parameters": [parameter("n", schema={"type": "integer"})]}}})
    draft = drafted(given, ask=lambda *_: Asked(200, {}), writes=True)
    assert requests(draft) == ["GET /ok"]
    assert reasons(draft)["POST /a/{n}"] == "no value is known for n: the document has no list that tells it"


def test_urls_in_the_places_of_paths_and_servers_with_fragments_are_understood():
    given = document({"http://h:80/users": get(), "/b": get()}, servers=[{"url": "http://h:80/docs/?x=1#/users"}])
    draft = drafted(given)
    assert (draft.target, requests(draft)) == ("http://h:80/docs", ["GET /users", "GET /b"])


def test_a_reference_that_is_no_location_leaves_out_its_operation_alone():
    def fetch(location):
        raise Unusable(f"it refers to {location}")

    paths = {"/a": get({"$ref": "http://[#/b"}), "/b": get()}
    references = References("/api.json", made := document(paths), fetch)
    api = read_api(made, "the document", "/api.json", references)
    draft = draft_from_api(api, references, Choice(api.target))
    assert requests(draft) == ["GET /b"]
    assert reasons(draft) == {"GET /a": "it refers to http://["}


def test_half_a_surrogate_pair_stands_for_no_sign():
    name = parameter("a\ud800é", "query", {**TEXT, "default": "\udc00"})
    assert requests(drafted(document({"/a": get(name)}))) == ["GET /a?a%3F%C3%A9=%3F"]


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [
        *((path, True) for path in ("/skill.md", "/presets", "/mails/deleted", "/restarts", "/killers/{resetToken}")),
        *(
            (path, False)
            for path in ("/logout", "/user/signOut", "/reset-all", "/deleteAll", "/jobs/kill", "/password_reset")
        ),
        *((path, True) for path in ("/preset", "/deletedUsers", "/users/revoked", "/killmails/{resetToken}")),
        *((path, False) for path in ("/deleteuser", "/killall", "/resetdb", "/v1/purgecache", "/restartserver")),
        *((path, False) for path in ("/userdelete", "/deletedocument", "/api/do_killjob")),
    ],
)
def test_a_get_that_ends_something_is_known_by_whole_words(path, is_kept):
    asked = document(
        {"/home": get(), path: get(parameter("resetToken", schema={"enum": ["a"]}) if "{" in path else {})}
    )
    assert ("by its name it ends or changes something" not in reasons(drafted(asked)).values()) is is_kept
