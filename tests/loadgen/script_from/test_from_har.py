"""Scripts from recordings: the requests in their order, without anybody's secrets."""

import json
from base64 import b64encode

import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.script_from.draft import Unusable
from loadgen.script_from.from_har import draft_from_har
from loadgen.script_from.openapi import environment_name
from loadgen.script_from.writer import script_text

START = "2026-03-01T10:00:{:06.3f}Z"


def entry(
    url,
    at=0.0,
    *,
    method="GET",
    status=200,
    took_ms=100,
    kind="text/html",
    page="p1",
    headers=(),
    data=None,
    text="",
    got=(),
):
    request = {"method": method, "url": url, "headers": [{"name": n, "value": v} for n, v in headers]}
    request |= {} if data is None else {"postData": {"mimeType": data[0], "text": data[1]}}
    response = {"status": status, "content": {"mimeType": kind, "text": text}}
    response["headers"] = [{"name": n, "value": v} for n, v in got]
    return {
        "startedDateTime": START.format(at),
        "time": took_ms,
        "pageref": page,
        "request": request,
        "response": response,
    }


def har(*entries, pages=()):
    return {
        "log": {"version": "1.2", "pages": [{"id": i, "title": title} for i, title in pages], "entries": [*entries]}
    }


def steps_of(draft):
    (flow,) = draft.flows
    return flow.steps


SESSION = har(
    entry("https://shop.example/", 0.0, headers=[(":authority", "shop.example"), ("Cookie", "sid=s3cret")]),
    entry("https://shop.example/style.css", 0.2, kind="text/css"),
    entry("https://cdn.example/font.woff2", 0.3, kind="font/woff2"),
    entry("https://stats.example/collect", 0.4, method="POST"),
    entry(
        "https://shop.example/api/cart?token=s3cret&size=2",
        2.1,
        method="POST",
        kind="application/json",
        status=201,
        headers=[
            ("Authorization", "Bearer s3cret"),
            ("X-CSRF-Token", "s3cret"),
            ("X-Requested-With", "fetch"),
            ("Origin", "https://shop.example"),
            ("Referer", "https://shop.example/basket?token=s3cret"),
        ],
        data=("application/json; charset=utf-8", '{"id": 7, "user": {"password": "s3cret"}}'),
    ),
    entry("https://shop.example/old", 60.0 - 2, status=302, page="p2"),
    entry("https://shop.example/new", 58.1, status=304, page="p2"),
    entry("https://shop.example/missing", 58.3, status=404, page="p2"),
    pages=[("p1", "https://shop.example/?sid=s3cret"), ("p2", "The end")],
)
SET = {"TOKEN": "x", "PASSWORD": "y"}


def test_a_session_is_replayed_in_order_with_its_pauses_and_without_its_secrets():
    draft = draft_from_har(SESSION, "session.har", environment=SET)
    first, second, third, fourth = steps_of(draft)
    assert draft.target == "https://shop.example"
    assert (first.url, first.headers, first.think_s, first.comment) == ("/", {}, 2.0, "Page: https://shop.example/")
    assert second.url == "/api/cart?token={{ $processEnvironment.TOKEN }}&size=2"
    assert second.body == ("json", {"id": 7, "user": {"password": "{{ $processEnvironment.PASSWORD }}"}})
    same_site = {"Origin": "{{ target }}", "Referer": "{{ target }}/"}
    assert second.headers == {"X-Requested-With": "fetch", **same_site}
    assert (second.think_s, second.expect) == (10.0, (201,))
    assert (third.url, third.expect, third.follow_redirect, third.comment) == ("/old", (302,), False, "Page: The end")
    assert (fourth.url, fourth.expect) == ("/new", (200,))
    assert [(each.request, each.why) for each in draft.left_out] == [("GET /missing", "it was answered with 404")]
    assert [(each.header, each.template) for each in draft.secrets] == [
        ("Authorization", "Bearer {{ $processEnvironment.TOKEN }}")
    ]
    assert "2 requests to other hosts: https://cdn.example (1), https://stats.example (1)." in draft.notes[0]
    assert "1 static file (images, styles, scripts, fonts)" in draft.notes[1]
    assert "s3cret" not in script_text(draft)


@pytest.mark.parametrize("other", ["https://shop.example.evil", "https://shop.example:8443", "null"])
def test_what_came_from_another_site_is_not_sent_as_from_its_own(other):
    sent = entry("https://shop.example/a", 0, method="POST", headers=[("Origin", other), ("Referer", f"{other}/x")])
    (step,) = steps_of(draft_from_har(har(sent), "s.har"))
    assert step.headers == {}


def test_a_request_whose_secret_is_not_known_is_left_out():
    draft = draft_from_har(SESSION, "session.har")
    assert draft.left_out[0].why == "it needs a secret (token): set TOKEN, and make the script again"


def test_the_rest_is_there_when_asked_for():
    draft = draft_from_har(SESSION, "session.har", static=True, target="http://127.0.0.1:8000/", limit=2)
    assert draft.target == "http://127.0.0.1:8000"
    assert [step.url for step in steps_of(draft)] == ["/", "/style.css"]


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (("application/x-www-form-urlencoded", "a=1&b=two+words"), ("form", {"a": "1", "b": "two words"})),
        (("application/x-www-form-urlencoded", "a=1&a=2"), ("body", "a=1&a=2")),
        (("text/plain", "hello"), ("body", "hello")),
        (("application/json", "{broken"), ("body", "{broken")),
        (("application/vnd.api+json", "[1]"), ("json", [1])),
    ],
)
def test_bodies_are_sent_as_they_were(data, body):
    draft = draft_from_har(har(entry("http://h/a", method="POST", data=data)), "x.har")
    assert steps_of(draft)[0].body == body


def test_a_query_with_a_short_code_and_a_state_is_no_login():
    draft = draft_from_har(har(entry("http://h/tax?state=CA&code=94110")), "x.har")
    assert steps_of(draft)[0].url == "/tax?state=CA&code=94110"


@pytest.mark.parametrize(
    ("recorded", "why"),
    [
        (entry("http://h/a", status=101), "it became another protocol, such as WebSocket"),
        (entry("http://h/a", kind="text/event-stream; charset=utf-8"), "its answer is a stream without an end"),
        (entry("http://h/a/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"), "its path holds a secret"),
        (entry("http://h/a?code=b1946ac92492d234&state=1"), "it ends a login, with a code that is valid only once"),
        (
            entry("http://h/a?state=af0ifjsldkjaf0ifjsldkj&code=12"),
            "it ends a login, with a code that is valid only once",
        ),
        (entry("http://h/a", method="POST", data=("text/xml", "<password>x</password>")), "its body may hold a secret"),
        (
            entry("http://h/a", method="POST", data=("application/json", '["ghp_' + "a1" * 15 + '"]')),
            "its body holds a secret",
        ),
        (entry("http://h/a", method="POST", data=("application/octet-stream", "a\0b")), "its body is binary"),
        (entry("http://h/{{a}}"), "its URL has {{ in it, which scripts read as a template"),
        (
            entry("http://h/a", method="POST", data=("multipart/form-data; boundary=x", "x")),
            "its body is a form with files",
        ),
        (
            entry("http://h/a", method="POST", data=("text/plain", "{{ a }}")),
            "its body has {{ in it, which scripts read as a",
        ),
    ],
)
def test_what_cannot_be_replayed_is_told(recorded, why):
    with pytest.raises(Unusable, match=r"x\.har: no request to http://h can be repeated: ") as told:
        draft_from_har(har(recorded), "x.har")
    assert why in str(told.value)


def test_a_secret_of_a_path_or_a_title_is_in_no_comment():
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
    recording = har(entry("http://h/"), entry(f"http://h/a/{secret}"), pages=[("p1", f"http://h/{secret}")])
    text = script_text(draft_from_har(recording, "x.har"))
    assert secret not in text and "GET /a/(a secret): its path holds a secret" in text
    with pytest.raises(Unusable) as told:
        draft_from_har(har(entry(f"http://h/a/{secret}")), "x.har")
    assert secret not in str(told.value)


def test_a_failed_request_is_left_out_and_a_file_without_any_answer_is_not_checked():
    draft = draft_from_har(har(entry("http://h/a"), entry("http://h/b", status=0)), "x.har")
    assert [(each.request, each.why) for each in draft.left_out] == [("GET /b", "it had no answer")]
    draft = draft_from_har(har({"request": {"method": "GET", "url": "http://h/a"}}), "x.har")
    assert [(step.url, step.expect) for step in steps_of(draft)] == [("/a", ())]
    assert draft.notes == ["The file has no answers, only requests: their statuses are not checked."]


SECRETS = [
    ("X-Api-Key", "k"),
    ("Ocp-Apim-Subscription-Key", "k"),
    ("X-Client", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"),
    ("X-Key", "a1b2c3d4e5f6a7b8c9d0e1f2"),
    ("X-Access-Key", "k"),
    ("X-Hmac", "k"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_a_secret_of_any_kind_stays_out_of_headers_queries_forms_and_json(name, value):
    body = ("application/json", json.dumps({"deep": [{name: value}], "author": "Ann"}))
    form = ("application/x-www-form-urlencoded", f"{name}={value}&{name}={value}&b=1")
    draft = draft_from_har(
        har(
            entry(f"http://h/a?b=1&{name}={value}", headers=[(name, value)]),
            entry("http://h/a", method="POST", data=body),
            entry("http://h/a", method="POST", data=form),
            pages=[("p1", f"http://h/#{name}={value}")],
        ),
        "x.har",
        environment={environment_name(name): "set"},
    )
    text = script_text(draft)
    assert value not in text.replace("k6", "") or value == "k"
    assert text.count("$processEnvironment." + environment_name(name)) == 5
    assert "author: Ann" in text


@pytest.mark.parametrize(
    "harmless", ["author", "authors", "key", "sort_key", "code", "hash", "design", "spin", "keyboard"]
)
def test_harmless_names_are_kept(harmless):
    draft = draft_from_har(har(entry(f"http://h/a?{harmless}=plain")), "x.har")
    assert steps_of(draft)[0].url == f"/a?{harmless}=plain"


def test_a_pin_is_a_secret_also_as_a_number():
    body = ("application/json", '{"pin": 1234, "max_tokens": 100}')
    draft = draft_from_har(har(entry("http://h/a", method="POST", data=body)), "x.har", environment={"PIN": "1"})
    assert steps_of(draft)[0].body == ("json", {"pin": "{{ $processEnvironment.PIN }}", "max_tokens": 100})


MULTIPART = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--x--\r\n'


@pytest.mark.parametrize(
    "data",
    [
        {"mimeType": "multipart/form-data; boundary=x", "text": MULTIPART},
        {"mimeType": "multipart/form-data", "params": [{"name": "a", "value": "one"}]},
        {
            "mimeType": "multipart/form-data; boundary=x",
            "text": b64encode(MULTIPART.encode()).decode(),
            "encoding": "base64",
        },
    ],
)
def test_a_multipart_form_without_files_is_sent(data):
    recorded = entry("http://h/a", method="POST", headers=[("Content-Type", data["mimeType"])])
    recorded["request"]["postData"] = data
    (step,) = steps_of(draft_from_har(har(recorded), "x.har"))
    assert (step.body, step.headers) == (("formData", {"a": "one"}), {})


def test_a_multipart_form_with_a_file_is_left_out():
    recorded = entry("http://h/a", method="POST")
    recorded["request"]["postData"] = {
        "mimeType": "multipart/form-data",
        "params": [{"name": "a", "fileName": "f.txt"}],
    }
    with pytest.raises(Unusable, match="its body is a form with files"):
        draft_from_har(har(recorded), "x.har")


def test_a_part_of_a_file_becomes_the_whole_and_unusual_signs_are_encoded():
    (step,) = steps_of(draft_from_har(har(entry("http://h/ä b?q=ö%20[1]", status=206)), "x.har"))
    assert (step.url, step.expect) == ("/%C3%A4%20b?q=%C3%B6%20[1]", (200,))


@pytest.mark.parametrize(
    "odd",
    [
        {"log": {"entries": None}},
        har(entry("data:text/plain,x"), entry("ws://h/"), entry("http://[/"), entry("http://h:99999/")),
        {"log": {"entries": [None, 1, {}, {"request": None}, {"request": {}, "response": {}}]}},
        har(entry("http://h/", method="OPTIONS", headers=[("Access-Control-Request-Method", "PUT")])),
    ],
)
def test_a_file_without_requests_is_told(odd):
    with pytest.raises(Unusable, match=r"x\.har: no HTTP request is recorded in it"):
        draft_from_har(odd, "x.har")


def test_a_recording_runs_green_on_the_service_that_it_was_made_of(tmp_path, serve, monkeypatch):
    def answer(connection, head):
        method, path, _ = head.split(b"\r\n")[0].decode().split()
        good = {("GET", "/"): 200, ("GET", "/list?page=2"): 200, ("GET", "/old"): 302}.get((method, path), 404)
        connection.sendall(f"HTTP/1.1 {good} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode())

    url = serve(answer).url
    recording = har(entry(f"{url}/", 0), entry(f"{url}/list?page=2", 0.3), entry(f"{url}/old", 0.5, status=302))
    (tmp_path / "s.har").write_text(json.dumps(recording))
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(cli, ["init", "s.har"])
    assert made.exit_code == 0, made.output
    assert "- think: 200ms\n" in (tmp_path / "load.yml").read_text()
    assert CliRunner().invoke(cli, ["run", "--check", "load.yml"]).exit_code == 0
    phases = json.dumps({"config": {"phases": [{"duration": 1, "arrivalCount": 3}]}})
    done = CliRunner().invoke(cli, ["run", "load.yml", "--overrides", phases])
    assert done.exit_code == 0, done.output


FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
PAGE = '<meta name="csrf-token" content="meta-token-1"><form><input type=hidden name=csrf_token value="form-token-1"></form>'


def test_a_token_of_a_page_is_taken_from_that_page():
    login = ("csrf_token=form-token-1&user=ann", [("X-CSRF-Token", "meta-token-1"), ("Cookie", "s=1")])
    draft = draft_from_har(
        har(
            entry("http://h/login", got=[("Set-Cookie", "s=1; HttpOnly")], text=PAGE),
            entry("http://h/login", 1, method="POST", status=302, headers=login[1], data=(FORM, login[0])),
        ),
        "x.har",
    )
    page, sent = steps_of(draft)
    assert [(c.source, c.path, c.attribute, c.variable) for c in page.captures] == [
        ("selector", 'meta[name="csrf-token"]', "content", "csrf_token"),
        ("selector", 'input[name="csrf_token"]', "value", "csrf_token_2"),
    ]
    assert sent.body == ("form", {"csrf_token": "{{ csrf_token_2 }}", "user": "ann"})
    assert sent.headers["X-Csrf-Token"] == "{{ csrf_token }}"
    assert sent.needs == ["csrf_token", "csrf_token_2"]
    text = script_text(draft)
    assert "token-1" not in text and "attr: value" in text
    assert "ifTrue: not (not csrf_token or not csrf_token_2)\n" in text


def test_a_token_that_a_login_answers_is_sent_by_the_requests_after_it():
    recording = har(
            entry("http://h/"),
            entry("http://h/login", method="POST", kind=JSON, text='{"data": {"access_token": "abcdefgh1"}}',
                  data=(JSON, '{"password": "x"}')),
            entry("http://h/me", 1, headers=[("Authorization", "Bearer abcdefgh1")]),
    )  # fmt: skip
    draft = draft_from_har(recording, "x.har", environment={"PASSWORD": "x"})
    _, login, me = steps_of(draft)
    assert [(c.source, c.path, c.variable) for c in login.captures] == [("json", "$.data.access_token", "access_token")]
    assert me.headers == {"Authorization": "Bearer {{ access_token }}"} and me.needs == ["access_token"]
    assert draft.secrets == []
    draft = draft_from_har(recording, "x.har", environment={"TOKEN": "x"})
    assert [step.url for step in steps_of(draft)] == ["/", "/me"]
    draft = draft_from_har(recording, "x.har")
    assert [step.url for step in steps_of(draft)] == ["/"]
    assert draft.left_out[1].why == "it needs the session that POST /login begins, which is left out"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (("Content-Type", "multipart/form-data; boundary=x"), False),
        (("Content-Length", "70"), False),
        (("Content-Length", "0"), True),
    ],
)
def test_a_body_that_the_browser_did_not_record_is_missed(header, kept):
    draft = draft_from_har(har(entry("http://h/"), entry("http://h/up", method="POST", headers=[header])), "x.har")
    assert [each.why for each in draft.left_out] == ([] if kept else ["its body is not in the recording"])


def test_what_a_post_has_created_is_asked_for_and_deleted_by_its_new_id():
    draft = draft_from_har(
        har(
            entry("http://h/api/items", method="POST", kind=JSON, status=201, text='{"id": 17}', data=(JSON, "{}")),
            entry("http://h/api/items/17?full=1", 1),
            entry("http://h/api/carts", 2, method="POST", kind=JSON, data=(JSON, '{"item_id": 17, "size": 17}')),
            entry("http://h/api/pages/17", 3),
            entry("http://h/api/items/17", 4, method="DELETE", status=204),
        ),
        "x.har",
    )
    made, seen, cart, page, gone = steps_of(draft)
    assert [(c.path, c.variable) for c in made.captures] == [("$.id", "id")]
    assert (seen.url, seen.needs) == ("/api/items/{{ id }}?full=1", ["id"])
    assert cart.body == ("json", {"item_id": "{{ id }}", "size": 17})
    assert (page.url, page.needs) == ("/api/pages/17", [])
    assert gone.url == "/api/items/{{ id }}"


def test_a_page_that_a_post_leads_to_is_asked_for_where_it_leads_the_next_time():
    draft = draft_from_har(
        har(
            entry("http://h/"),
            entry(
                "http://h/posts", method="POST", status=302, got=[("Location", "http://h/posts/17")], data=(FORM, "a=b")
            ),
            entry("http://h/posts/17", 1),
            entry("http://h/posts/17/edit", 2),
            entry("http://h/logins", 3, method="POST", status=302, got=[("Location", "/")], data=(FORM, "a=b")),
            entry("http://h/", 4),
        ),
        "x.har",
    )
    urls = [step.url for step in steps_of(draft)]
    assert urls == ["/", "/posts", "{{ location }}", "{{ location }}/edit", "/logins", "/"]
    assert steps_of(draft)[1].captures[0].source == "header"


@pytest.mark.parametrize(
    ("location", "target", "url"),
    [
        ("/posts/17", "http://h/base/", "/posts/17"),
        ("http://h/posts/17", "http://h/base", "{{ location }}"),
        ("/posts/17", "http://h/", "{{ location }}"),
    ],
)
def test_a_path_that_a_post_leads_to_does_not_get_the_targets_path_twice(location, target, url):
    made = entry("http://h/posts", method="POST", status=302, got=[("Location", location)], data=(FORM, "a=b"))
    draft = draft_from_har(har(made, entry("http://h/posts/17", 1)), "x.har", target=target)
    assert [step.url for step in steps_of(draft)] == ["/posts", url]


@pytest.mark.parametrize("cookies", [True, False])
def test_requests_of_a_session_whose_login_is_left_out_are_left_out(cookies):
    def sent(value):
        return [("Cookie", value)] if cookies else []

    recording = har(
        entry("http://h/", headers=sent("seen=1")),
        entry("http://h/login", 1, method="POST", status=302, got=[("Set-Cookie", "session=x")] if cookies else [],
              headers=sent("seen=1"), data=(FORM, "user=a&password=b")),
        entry("http://h/account", 2, headers=sent("seen=1; session=x")),
    )  # fmt: skip
    draft = draft_from_har(recording, "x.har")
    assert [step.url for step in steps_of(draft)] == ["/"]
    assert draft.left_out[1].why == "it needs the session that POST /login begins, which is left out"
    draft = draft_from_har(recording, "x.har", environment={"PASSWORD": "b"})
    assert [step.url for step in steps_of(draft)] == ["/", "/login", "/account"]


@pytest.mark.parametrize("first_set_by", ["/", "/search?api_key=x"])
def test_a_cookie_that_several_answers_set_is_no_session_of_one_that_is_left_out(first_set_by):
    renewed, seen = [("Set-Cookie", "AWSALB=x; Path=/")], False
    recorded = []
    for number, path in enumerate(("/", "/search?api_key=x", *(f"/page/{n}" for n in range(3)))):
        sent = [("Cookie", "AWSALB=x")] if seen else []
        seen = seen or path == first_set_by
        recorded.append(entry(f"http://h{path}", number, headers=sent, got=renewed if seen else []))
    draft = draft_from_har(har(*recorded), "x.har")
    assert [step.url for step in steps_of(draft)] == ["/", "/page/0", "/page/1", "/page/2"]


def test_a_cookie_that_only_a_left_out_answer_sets_is_its_session():
    recording = har(
        entry("http://h/"),
        entry("http://h/enter?api_key=x", 1, got=[("Set-Cookie", "sid=x")]),
        entry("http://h/account", 2, headers=[("Cookie", "sid=x")]),
    )
    assert [step.url for step in steps_of(draft_from_har(recording, "x.har"))] == ["/"]


def test_a_text_of_a_left_out_answer_is_a_token_only_in_a_header_with_a_secret():
    answered = '{"redirect": "https://shop.example", "value": "abcdefgh1"}'
    recording = har(
        entry("http://h/"),
        entry("http://h/login", 1, method="POST", kind=JSON, text=answered, data=(JSON, '{"api_key": "x"}')),
        entry("http://h/a", 2, headers=[("Origin", "https://shop.example")]),
        entry("http://h/b", 3, headers=[("Authorization", "Bearer abcdefgh1")]),
    )
    assert [step.url for step in steps_of(draft_from_har(recording, "x.har"))] == ["/", "/a"]


def test_a_header_that_repeats_a_cookie_cannot_be_sent():
    headers = [("Cookie", "csrftoken=abc"), ("X-CSRFToken", "abc")]
    draft = draft_from_har(
        har(entry("http://h/", headers=headers), entry("http://h/a", method="POST", headers=headers)), "x.har"
    )
    assert [each.why for each in draft.left_out] == ["its x-csrftoken repeats a cookie, which a script cannot read"]


@pytest.mark.parametrize(
    "text", ["", "{", "[1", '{"token": 5, "id": null}', "\0", "<input name=csrf value=", "[" * 5000]
)
@pytest.mark.parametrize("kind", [JSON, "text/html"])
def test_an_answer_that_cannot_be_read_is_no_source(kind, text):
    draft = draft_from_har(har(entry("http://h/", method="POST", kind=kind, text=text), entry("http://h/a")), "x.har")
    assert [step.url for step in steps_of(draft)] == ["/", "/a"]
