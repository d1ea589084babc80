"""`loadgen init`: the scripts that it writes pass the check and run green, on a shop made for it and on the service itself."""

import json
import threading
from secrets import token_hex
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner
from flask import Flask, jsonify, redirect, request, session
from werkzeug.serving import make_server

from loadgen.cli import cli
from loadgen.commands.init import _is_here

ID = {"type": "integer"}
PET = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string", "minLength": 5},
        "kind": {"enum": ["cat", "dog"]},
    },
}
PET_ID = {"name": "petId", "in": "path", "required": True, "schema": ID}


def operation(schema=None, status="200", **more):
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"responses": {status: {"description": "It", **content}}, **more}


def of_pets(name):
    return {"$ref": f"#/components/schemas/{name}"}


SHOP = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "/api"}],
    "components": {
        "schemas": {"Pet": PET, "Pets": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "paths": {
        "/pets/{petId}": {
            "parameters": [PET_ID],
            "get": operation(of_pets("Pet")),
            "put": operation(of_pets("Pet"), requestBody={"content": {"application/json": {"schema": of_pets("Pet")}}}),
            "delete": operation(status="204"),
        },
        "/pets/{petId}/photos": {
            "parameters": [PET_ID],
            "get": operation({"type": "array", "items": {"type": "string"}}),
        },
        "/pets": {
            "get": operation(of_pets("Pets")),
            "post": operation(
                of_pets("Pet"),
                "201",
                requestBody={"required": True, "content": {"application/json": {"schema": of_pets("Pet")}}},
            ),
        },
        "/search": {
            "get": operation(
                {},
                parameters=[
                    {"name": "q", "in": "query", "required": True, "schema": {"type": "string"}},
                    {"name": "day", "in": "query", "required": True, "schema": {"type": "string", "format": "date"}},
                    {"name": "page", "in": "query", "schema": {"type": "integer"}},
                ],
            )
        },
        "/reports/{period}": {
            "get": operation(
                {}, parameters=[{"name": "period", "in": "path", "required": True, "schema": {"enum": ["day", "week"]}}]
            )
        },
        "/orders/{orderId}": {"get": operation({}, parameters=[{"name": "orderId", "in": "path", "required": True}])},
        "/account": {"get": operation({}, security=[{"token": []}])},
        "/gone": {"get": operation({})},
        "/moved": {"get": operation({}, "302")},
        "/old": {"get": operation({})},
        "/logout": {"get": operation({})},
        "/events": {"get": {"responses": {"200": {"description": "Forever", "content": {"text/event-stream": {}}}}}},
    },
}


def shop():
    app = Flask(__name__)
    pets = {7001: "Felix the cat"}
    asked = app.config["asked"] = []

    @app.before_request
    def note():
        asked.append(f"{request.method} {request.path}")

    app.add_url_rule("/openapi.json", view_func=lambda: jsonify(SHOP), endpoint="document")
    app.add_url_rule("/api/", view_func=lambda: "hello", endpoint="root")
    app.add_url_rule(
        "/api/pets", view_func=lambda: jsonify([{"id": i, "name": pets[i]} for i in pets]), endpoint="list"
    )

    @app.get("/api/pets/<int:pet>")
    def read(pet):
        return jsonify({"id": pet}) if pet in pets else (jsonify({}), 404)

    @app.get("/api/pets/<int:pet>/photos")
    def photos(pet):
        return jsonify([]) if pet in pets else (jsonify({}), 404)

    @app.post("/api/pets")
    def create():
        name = request.get_json().get("name", "")
        if len(name) < 5 or "id" in request.get_json():
            return jsonify({}), 422
        new = max(pets) + 1
        pets[new] = name
        return jsonify({"id": new}), 201

    @app.put("/api/pets/<int:pet>")
    def change(pet):
        return (jsonify({"id": pet}), 200) if pet in pets and pet != 7001 else (jsonify({}), 404)

    @app.delete("/api/pets/<int:pet>")
    def remove(pet):
        return ("", 204) if pet != 7001 and pets.pop(pet, None) else (jsonify({}), 404)

    @app.get("/api/search")
    def search():
        good = request.args["q"] and len(request.args["day"].split("-")) == 3 and "page" not in request.args
        return jsonify({}) if good else (jsonify({}), 400)

    @app.get("/api/account")
    def account():
        return jsonify({}) if request.headers.get("Authorization") == "Bearer s3cret" else (jsonify({}), 401)

    app.add_url_rule(
        "/api/reports/<period>",
        view_func=lambda period: ("{}", 200 if period in {"day", "week"} else 404),
        endpoint="r",
    )
    app.add_url_rule("/api/gone", view_func=lambda: ("", 410), endpoint="gone")
    app.add_url_rule("/api/moved", view_func=lambda: redirect("https://example.org/"), endpoint="moved")
    app.add_url_rule("/api/old", view_func=lambda: redirect("/login?next=/api/old"), endpoint="old")
    return app


@pytest.fixture
def serve_app():
    servers = []

    def start(app):
        server = make_server("127.0.0.1", 0, app, threaded=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def loadgen(*arguments, **environment):
    return CliRunner().invoke(cli, [str(a) for a in arguments], env=environment)


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "load.yml"


def runs_green(script, users=4, **environment):
    """Whether a script passes the check without a warning, and all its requests are answered as it expects."""
    checked = loadgen("run", "--check", script, **environment)
    assert checked.exit_code == 0, checked.stderr
    script.write_text(script.read_text().replace("think: 1\n", "think: 10ms\n"))
    phases = json.dumps({"config": {"phases": [{"duration": 1, "arrivalCount": users}]}})
    done = loadgen("run", script, "--overrides", phases, "-o", script.with_suffix(".json"), "--seed", 1, **environment)
    assert done.exit_code == 0, done.output
    assert "* GET" not in done.stdout, "of checks, only those that fail are told"
    counters = json.loads(script.with_suffix(".json").read_text())["aggregate"]["counters"]
    assert counters["vusers.failed"] == 0
    assert "plugins.expect.failed" not in counters
    return counters


def left_out(script):
    lines = script.read_text().partition("# Left out:\n")[2].splitlines()
    return dict(line.removeprefix("#   ").split(": ", 1) for line in lines)


def test_a_service_with_a_document_gets_a_script_that_runs_green(serve_app, script):
    app = shop()
    done = loadgen("init", serve_app(app))
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "load.yml: 6 requests in 4 scenarios" in done.stderr
    text = script.read_text()
    assert "url: /pets/{{ petId }}\n" in text
    assert '- json: "$[0].id"\n' in text
    assert "url: /search?q=text&day=2024-01-15" in text
    assert "url: /reports/day" in text
    assert left_out(script) == {
        "GET /orders/{orderId}": "no value is known for orderId: the document has no list that tells it",
        "GET /account": "answered 401: it needs TOKEN, which is not set",
        "GET /gone": "answered 410",
        "GET /old": "answered 302, to /login?next=/api/old: it needs a session",
        "GET /logout": "by its name it ends or changes something",
        "GET /events": "its answer is a stream without an end",
    }
    asked = [each for each in app.config["asked"] if "/api/" in each and each != "GET /api/"]
    assert len(asked) == len(set(asked)), "each is asked once"
    assert all(each.startswith("GET ") for each in asked)
    assert runs_green(script)["http.codes.200"] > 4


def test_writes_change_only_what_the_script_itself_has_created(serve_app, script):
    done = loadgen("init", serve_app(shop()), "--writes")
    assert done.exit_code == 0, done.output
    text = script.read_text()
    assert text.index("- post:") < text.index("- put:") < text.index("- delete:")
    assert 'name: "text' not in text and "name: textx" in text
    codes = runs_green(script, users=12)
    assert codes["http.codes.201"] == codes["http.codes.204"] > 0


def test_a_secret_comes_from_the_environment_and_is_not_in_the_script(serve_app, script):
    url = serve_app(shop())
    done = loadgen("init", url, "--value", "orderId=5", TOKEN="s3cret")
    assert done.exit_code == 0, done.output
    assert "s3cret" not in script.read_text()
    assert 'Authorization: "Bearer {{ $processEnvironment.TOKEN }}"' in script.read_text()
    assert left_out(script)["GET /orders/{orderId}"] == "answered 404"
    runs_green(script, TOKEN="s3cret")


def test_without_asking_the_document_is_believed(serve_app, script):
    app = shop()
    done = loadgen("init", f"{serve_app(app)}/openapi.json", "--no-probe")
    assert done.exit_code == 0, done.output
    assert app.config["asked"] == ["GET /openapi.json"]
    text = script.read_text()
    assert '# defaults: {headers: {Authorization: "Bearer {{ $processEnvironment.TOKEN }}"}}' in text
    assert "url: /gone" in text
    assert loadgen("run", "--check", script).exit_code == 0


def test_a_file_is_left_alone_without_force_and_a_dash_is_stdout(serve_app, script):
    url = serve_app(shop())
    script.write_text("mine")
    refused = loadgen("init", url)
    assert refused.exit_code == 2
    assert refused.stderr == "Error: load.yml is there already: --force replaces it, -o names another file\n"
    assert script.read_text() == "mine"
    assert loadgen("init", url, "-o", "-").stdout.startswith("# Made by `loadgen init` from Shop (OpenAPI 3.1.0).\n")
    assert loadgen("init", url, "--force").exit_code == 0
    assert script.read_text() != "mine"


def test_a_url_without_a_document_gets_one_request(serve, script, ok_answer):
    def answer(connection, head):
        path = head.split()[1]
        connection.sendall(ok_answer() if path == b"/a?b=c" else b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    url = serve(answer).url
    done = loadgen("init", f"{url}/a?b=c")
    assert done.exit_code == 0, done.output
    assert "url: /a?b=c\n" in script.read_text()
    runs_green(script)
    gone = loadgen("init", f"{url}/gone", "--force")
    assert gone.exit_code == 2
    assert gone.stderr == f"Error: {url}/gone answers 404, and no OpenAPI document was found there\n"


def test_the_load_goes_to_the_host_that_was_named_and_not_to_the_one_in_the_document(serve_app, script):
    app = Flask(__name__)
    document = {**SHOP, "servers": [{"url": "https://shop.example/v2"}], "paths": {"/a": {"get": operation()}}}
    app.add_url_rule("/v3/api-docs", view_func=lambda: jsonify(document), endpoint="document")
    app.add_url_rule("/v2/a", view_func=lambda: "a", endpoint="a")
    url = serve_app(app)
    done = loadgen("init", url)
    assert done.exit_code == 0, done.output
    assert f"target: {url}/v2\n" in script.read_text()
    assert f"The document names https://shop.example/v2 as its server; this script goes to {url}." in done.stderr
    runs_green(script)


def test_a_document_without_a_request_gets_the_root_of_the_service_and_all_reasons(serve_app, script):
    app = Flask(__name__)
    document = {"openapi": "3.0.3", "paths": {"/a/{aId}": {"get": operation()}, "/b": {"post": operation()}}}
    app.add_url_rule("/openapi.json", view_func=lambda: jsonify(document), endpoint="document")
    url = serve_app(app)
    refused = loadgen("init", url)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "Error: no operation of the document can be requested: GET /a/{aId}: "
    )
    app.view_functions["root"] = lambda: "hello"
    app.url_map.add(app.url_rule_class("/", endpoint="root"))
    done = loadgen("init", url)
    assert done.exit_code == 0, done.output
    assert "This script requests / alone: no operation of the document can be requested: " in done.stderr
    assert list(left_out(script)) == ["GET /a/{aId}"]
    runs_green(script)


def test_a_target_without_the_base_path_of_the_document_gets_it(serve_app, script):
    (script.parent / "shop.json").write_text(json.dumps(SHOP))
    url = serve_app(shop())
    done = loadgen("init", "shop.json", "--target", url)
    assert done.exit_code == 0, done.output
    assert f"Below {url} itself nothing was found: the document's base path /api is part of the target." in done.stderr
    assert f"target: {url}/api\n" in script.read_text()
    runs_green(script)


def blog():
    """A blog with a login: a token in each form, which is good once, and posts that get new numbers and can be deleted."""
    app = Flask(__name__)
    app.secret_key = "s"
    posts = {16: "old"}

    def page():
        session["form"] = token_hex(8)
        return f'<form method=post><input type=hidden name=csrf_token value="{session["form"]}"></form>'

    def submitted():
        return session.get("user") and request.values.get("csrf_token") == session.pop("form", None)

    @app.get("/login")
    def login_page():
        return page()

    @app.post("/login")
    def login():
        session["user"] = request.form["password"] == "pw"
        return redirect("/new") if submitted() else ("", 401)

    @app.get("/new")
    def new():
        return page() if session.get("user") else redirect("/login")

    @app.post("/posts")
    def create():
        if not submitted():
            return "", 400
        posts[max(posts) + 1] = request.form["title"]
        return redirect(f"/posts/{max(posts)}")

    @app.get("/posts/<int:number>")
    def read(number):
        return page() if number in posts else ("", 404)

    @app.post("/posts/<int:number>/delete")
    def delete(number):
        return redirect("/new") if submitted() and posts.pop(number, None) else ("", 404)

    return app


def recorded(app, *requests):
    """The HAR file of these requests (method, path, fields of a form) as a browser would have recorded them.

    `TOKEN` in a field stands for the token of the page before.
    """
    entries, token = [], ""
    with app.test_client() as browser:
        for number, (method, path, form) in enumerate(requests):
            sent = {name: token if value == "TOKEN" else value for name, value in form.items()}
            answer = browser.open(path, method=method, data=sent or None)
            token = answer.text.partition('value="')[2].partition('"')[0]
            body = (
                {"postData": {"mimeType": "application/x-www-form-urlencoded", "text": urlencode(sent)}} if sent else {}
            )
            headers = [{"name": n, "value": v} for n, v in answer.headers]
            cookies = [{"name": "Cookie", "value": answer.request.headers.get("Cookie", "")}]
            entries.append(
                {
                    "startedDateTime": f"2026-03-01T10:00:{number:02}Z",
                    "time": 900,
                    "request": {"method": method, "url": f"http://blog.example{path}", "headers": cookies, **body},
                    "response": {
                        "status": answer.status_code,
                        "headers": headers,
                        "content": {"mimeType": "text/html", "text": answer.text},
                    },
                }
            )
    return json.dumps({"log": {"entries": entries}})


def test_a_recorded_session_with_a_login_runs_green_for_several_users(serve_app, script):
    form = {"csrf_token": "TOKEN"}
    session_of_a_user = (
        ("GET", "/login", {}),
        ("POST", "/login", {**form, "password": "pw"}),
        ("GET", "/new", {}),
        ("POST", "/posts", {**form, "title": "new"}),
        ("GET", "/posts/17", {}),
        ("POST", "/posts/17/delete", form),
    )
    (script.parent / "session.har").write_text(recorded(blog(), *session_of_a_user))
    url = serve_app(blog())
    made = loadgen("init", "session.har", "-t", url)
    assert made.exit_code == 0, made.output
    assert left_out(script)["POST /login"] == "it needs a secret (password): set PASSWORD, and make the script again"
    runs_green(script)
    made = loadgen("init", "session.har", "-t", url, "--force", PASSWORD="pw")
    assert made.exit_code == 0, made.output
    assert not left_out(script)
    counters = runs_green(script, PASSWORD="pw")
    assert (counters["http.codes.200"], counters["http.codes.302"]) == (12, 12)


DOCUMENT = {"openapi": "3.0.3", "paths": {"/a": {"get": {}}}}


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("a.json", '{"openapi": "3.0.0",\n "paths": {]}', 2, "a.json, line 2: not JSON: "),
        ("a.yaml", "openapi: 3.0.0\npaths: [\n", 2, "a.yaml, line 2: not YAML: "),
        ("a.yaml", "- 1\n- 2\n", 2, "a.yaml: neither an OpenAPI document nor a HAR file"),
        ("a.json", "[" * 100_000 + "]" * 100_000, 2, "a.json: nested too deeply"),
        ("a.json", "", 2, "a.json: empty"),
        ("a.json", b"\xff\xfe{}", 2, "a.json: not UTF-8"),
        ("a.html", "<html></html>", 2, "a.html: HTML or XML, not an OpenAPI document or a HAR file"),
        ("a.json", '{"swagger": "1.2", "apis": []}', 2, "a.json: OpenAPI 1.2; versions 2.0 and 3.0 to 3.2 can be read"),
        ("a.json", '{"openapi": "3.1.0", "paths": {}}', 2, "a.json: no `paths`: the document describes no endpoint"),
        (
            "a.json",
            '{"openapi": "3.1.0", "paths": {"/": {}}, "servers": [{"url": "http://[x"}]}',
            2,
            "the server's URL http",
        ),
        ("a.har", '{"log": {"entries": []}}', 2, "a.har: no HTTP request is recorded in it"),
        (
            "a.json",
            json.dumps({**DOCUMENT, "paths": {"/a": {"put": {}}}}),
            2,
            "no operation of the document can be req",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_one_clear_line(script, name, content, code, said):
    path = script.with_name(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = loadgen("init", path.name)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith(f"Error: {said}")
    assert done.stderr.count("\n") == 1
    assert not script.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.yaml"], 2, "cannot read missing.yaml: No such file or directory"),
        (["http://127.0.0.1:1/"], 3, "cannot reach http://127.0.0.1:1/: ECONNREFUSED"),
        (["{document}", "--target", "http://127.0.0.1:1"], 3, "cannot reach http://127.0.0.1:1: ECONNREFUSED"),
        (["{document}", "--target", "shop"], 2, "--target: invalid URL shop"),
        (["http://[x/"], 2, "invalid URL http://[x/"),
        (["http://h:99999/"], 2, "invalid URL http://h:99999/"),
        (["http://"], 2, "invalid URL http://"),
        (["http://me:secret@127.0.0.1:1/"], 2, "http://…@127.0.0.1:1/: a script must not hold a user or a password"),
        (["http://secret@127.0.0.1:1/"], 2, "http://…@127.0.0.1:1/: a script must not hold a user or a password"),
        (["{document}", "--target", "http://me:secret@h"], 2, "--target: http://…@h: a script must not hold"),
        (["http://me:sec/ret@h/"], 2, "invalid URL http://…@h/: its user, password, host or port cannot be read"),
        ([json.dumps(DOCUMENT) * 200], 2, 'cannot read {"openapi": "3.0.3"'),
        (["{document}", "-o", f"{'x' * 300}.yml"], 2, f"cannot write {'x' * 300}.yml: File name too long"),
        (["{document}", "--value", "orderId"], 2, "--value: must be NAME=VALUE, not 'orderId'"),
        (["{document}", "-o", "no/such/x.yml"], 2, "cannot write no/such/x.yml"),
    ],
)
def test_a_mistake_is_one_clear_line(script, arguments, code, said):
    document = script.with_name("document.json")
    document.write_text(json.dumps(DOCUMENT))
    done = loadgen("init", *[a.replace("{document}", document.name) for a in arguments])
    assert done.exit_code == code, done.output
    assert done.stderr.startswith(f"Error: {said}") and "secret" not in done.stderr
    assert not script.exists()


def test_a_password_in_a_document_stays_out_of_the_script(script):
    document = {**DOCUMENT, "servers": [{"url": "http://me:secret@shop.example/v1"}]}
    script.with_name("document.json").write_text(json.dumps(document))
    done = loadgen("init", "document.json", "--no-probe")
    assert done.exit_code == 0, done.output
    assert "target: http://shop.example/v1\n" in script.read_text()
    assert "secret" not in script.read_text() + done.output


def test_a_document_in_several_files_is_read(script):
    script.with_name("paths").mkdir()
    script.with_name("api.yaml").write_text(
        "openapi: 3.0.3\nservers: [{url: 'http://shop.example/{v}', variables: {v: {default: v9}}}]\n"
        "paths:\n  /pets: {$ref: paths/pets.yaml}\n  /lost: {$ref: paths/lost.yaml}\n  /web: {$ref: 'http://other.example/a'}\n"
    )
    script.with_name("paths").joinpath("pets.yaml").write_text(
        "get:\n  parameters: [{$ref: '../shared.yaml#/kind'}]\n  responses: {200: {description: x}}\n"
    )
    script.with_name("shared.yaml").write_text("kind: {name: kind, in: query, required: true, schema: {enum: [cat]}}\n")
    done = loadgen("init", "api.yaml")
    assert done.exit_code == 0, done.output
    assert "target: http://shop.example/v9\n" in script.read_text()
    assert "url: /pets?kind=cat\n" in script.read_text()
    reasons = left_out(script)
    assert reasons["GET /lost"].endswith("lost.yaml, which is no file")
    assert reasons["GET /web"] == "it refers to http://other.example/a, which is not read"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--writes"]], ids=["reads", "writes"])
def test_the_service_of_this_project_gets_a_script_that_runs_green(start_service, postgres, script, options):
    server = start_service(DATABASE_URL=postgres.url)
    done = loadgen("init", f"http://127.0.0.1:{server.port}", *options)
    assert done.exit_code == 0, done.output
    counters = runs_green(script, users=8)
    if options:
        assert "url: /links/{{ new_link_code }}/analytics" in script.read_text()
        assert counters["http.codes.301"] == counters["http.codes.201"] > 0


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.0.1", True), ("[::1]", True), ("127.0.0.1.example.com", False)],
)
def test_only_loopback_is_this_machine(host, is_here):
    assert _is_here(f"http://{host}:8000/v1") is is_here
