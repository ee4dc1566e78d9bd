"""Who is let in and who is not, and what may be changed: asked of the whole application, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.documents.standing import is_serving
from jobvisor.supervisor.web.access import CSRF_HEADER, Who, csrf, writing
from jobvisor.supervisor.web.app import ROUTERS, create_app
from jobvisor.supervisor.web.sessions import LIFETIME_S, Sessions
from tests.clock import StandingClock
from tests.supervisor.web.visitor import SITE, visitor

TOKEN = "t0ken-of-twenty-letters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ADDRESS: dict[str, Any] = {"user": "ann", "password": "a_pass_word"}


opened: list[Client] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No connection is left to the garbage collector."""
    yield
    while opened:
        opened.pop().close()


def database() -> Client:
    """An empty one."""
    opened.append(Client("memory://"))
    return opened[-1]


def site(**settings: Any) -> FastAPI:
    """An application with a call that changes something, one that says who asks, and a page with a form."""
    app = create_app(database(), settings=Web(**settings))
    form = Environment(autoescape=True).from_string("<form>{{ csrf() }}</form>", {"csrf": csrf})

    @app.post("/api/v1/change", dependencies=[Depends(writing)])
    def change() -> bool:
        return True

    @app.get("/api/v1/me")
    def me(asking: Who) -> str:
        return asking

    @app.get("/form")
    def page(request: Request) -> Response:
        return HTMLResponse(form.render(request=request))

    return app


def form_token(page: str) -> str:
    found = re.search('name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


def signed_in(app: FastAPI) -> TestClient:
    client = visitor(app, follow_redirects=False)
    token = form_token(client.get("/sign-in").text)
    answer = client.post("/sign-in", data={**ADDRESS, "csrf": token, "next": "/form"})
    assert answer.status_code == 303, answer.text
    return client


def test_without_a_secret_this_machine_is_let_in_and_no_other() -> None:
    app = site()
    assert visitor(app).get("/api/v1/me").json() == "local"
    assert visitor(app, "::1").get("/api/v1/me").json() == "local"
    refused = visitor(app, "192.0.2.7").get("/api/v1/me")
    assert refused.status_code == 403
    assert "[web] token" in refused.json()["detail"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_what_a_proxy_of_this_machine_passes_on_is_not_of_this_machine(header: str) -> None:
    assert visitor(site()).get("/api/v1/me", headers={header: "192.0.2.7"}).status_code == 403


def test_the_token_lets_in_and_a_wrong_or_missing_one_does_not() -> None:
    client = visitor(site(token=TOKEN))
    assert client.get("/api/v1/me", headers=BEARER).json() == "token"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
                    {"Authorization": "Bearer"}, {"Authorization": f"Bearer {TOKEN}x"}):  # fmt: skip
        refused = client.get("/api/v1/me", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in refused.text


def test_a_page_sends_who_is_not_signed_in_to_the_form_and_back() -> None:
    app = site(**ADDRESS)
    client = visitor(app, follow_redirects=False)
    sent = client.get("/form?a=1", headers={"Accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in?next=/form%3Fa%3D1")
    page = client.get(sent.headers["location"])
    assert 'value="/form?a=1"' in page.text
    answer = client.post(
        "/sign-in", data={**ADDRESS, "csrf": form_token(page.text), "next": "/form?a=1"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/form?a=1")
    assert client.get("/api/v1/me").json() == "ann"


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "x"]
)
def test_the_form_sends_nobody_to_another_site(where: str) -> None:
    client = visitor(site(**ADDRESS), follow_redirects=False)
    token = form_token(client.get("/sign-in").text)
    answer = client.post("/sign-in", data={**ADDRESS, "csrf": token, "next": where})
    assert answer.headers["location"] == "/"


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get() -> None:
    client = visitor(site(**ADDRESS), follow_redirects=False)
    page = client.get("/sign-in")
    data = {**ADDRESS, "csrf": form_token(page.text)}
    cookies = client.post("/sign-in", data=data).headers.get_list("set-cookie")
    session = next(each for each in cookies if "session" in each)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(session.split("; "))
    assert "Secure" not in session
    assert ADDRESS["password"] not in session
    encrypted = client.post(
        "/sign-in", data=data, headers={"Origin": "https://127.0.0.1:8321"}
    ).headers.get_list("set-cookie")
    assert "Secure" in next(each for each in encrypted if "session" in each)


def test_the_token_signs_in_where_there_is_no_password() -> None:
    client = visitor(site(token=TOKEN))
    token = form_token(client.get("/sign-in").text)
    client.post("/sign-in", data={"password": TOKEN, "csrf": token})
    assert client.get("/api/v1/me").json() == "token"


def test_an_empty_password_signs_nobody_in() -> None:
    for settings in ({"token": TOKEN}, ADDRESS):
        client = visitor(site(**settings))
        token = form_token(client.get("/sign-in").text)
        assert client.post("/sign-in", data={"csrf": token}).status_code == 403


def test_a_session_ends_by_signing_out_and_is_not_good_again() -> None:
    client = signed_in(site(**ADDRESS))
    kept = dict(client.cookies)
    token = form_token(client.get("/form").text)
    assert client.post("/sign-out", data={"csrf": token}).status_code == 303
    assert client.get("/api/v1/me").status_code == 401
    client.cookies.update(kept)
    assert client.get("/api/v1/me").status_code == 401


def test_a_session_is_good_in_another_process_of_the_same_secrets_until_its_time_is_over() -> None:
    clock = StandingClock()
    begun = Sessions("secret", clock).begin("ann")
    other = Sessions("secret", clock)
    assert other.who(begun) == "ann"
    assert Sessions("another", clock).who(begun) is None
    clock.move((LIFETIME_S + 1) * 1000)
    assert other.who(begun) is None


@pytest.mark.parametrize("forged", ["", "...", "9999999999.x.YW5u.", "é", "x" * 5000, "1.2.3.4.5"])
def test_a_forged_session_is_none(forged: str) -> None:
    clock = StandingClock()
    assert Sessions("secret", clock).who(forged) is None
    assert Sessions("", clock).who(Sessions("", clock).begin("ann")) is None


def test_too_many_wrong_passwords_are_refused_unread_and_a_session_goes_on() -> None:
    app = site(**ADDRESS)
    good = signed_in(app)
    client = visitor(app, "192.0.2.7")
    token = form_token(client.get("/sign-in").text)
    wrong = {"user": "ann", "password": "wrong", "csrf": token}
    statuses = [client.post("/sign-in", data=wrong).status_code for _ in range(15)]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    assert client.post("/sign-in", data={**ADDRESS, "csrf": token}).status_code == 429
    assert good.get("/api/v1/me").json() == "ann"
    signed_in(app)  # from another address


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "a@127.0.0.1", "[::1"]
)
def test_a_name_that_is_none_of_ours_is_refused(host: str) -> None:
    app = site()
    refused = visitor(app).get("/api/v1/me", headers={"Host": host})
    assert refused.status_code in (400, 403)
    assert host not in refused.text


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "[::1]:8321", "localhost", "LOCALHOST:8321", "10.0.0.3", "a.localhost"]
)
def test_an_address_and_the_machines_own_names_are_ours(host: str) -> None:
    assert visitor(site()).get("/api/v1/me", headers={"Host": host}).status_code == 200


def test_a_name_in_origins_is_ours_and_who_shows_a_token_may_use_any() -> None:
    app = site(origins=("https://ops.example.com",), token=TOKEN)
    client = visitor(app, follow_redirects=False)
    assert client.get("/form", headers={"Host": "ops.example.com"}).status_code == 401
    assert client.get("/form", headers={"Host": "evil.example"}).status_code == 403
    told = client.get("/api/v1/me", headers={**BEARER, "Host": "jobvisor-web:8321"})
    assert told.status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", ""])
def test_a_page_of_another_site_may_not_ask(origin: str) -> None:
    client = visitor(site())
    for method in ("GET", "POST"):
        refused = client.request(method, "/api/v1/change", headers={"Origin": origin})
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers


def test_a_page_of_origins_may_ask_and_is_told_so_beforehand() -> None:
    origin = "https://ops.example.com"
    client = visitor(site(origins=(origin,), token=TOKEN))
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    allowed = client.options("/api/v1/change", headers=asked)
    assert allowed.status_code == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == origin
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    answer = client.post("/api/v1/change", headers={**BEARER, "Origin": origin})
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    other = client.options("/api/v1/change", headers={**asked, "Origin": "http://evil.example"})
    assert not [name for name in other.headers if name.startswith("access-control")]


def test_a_browser_changes_nothing_without_the_token_of_its_page() -> None:
    client = signed_in(site(**ADDRESS))
    token = form_token(client.get("/form").text)
    assert client.post("/api/v1/change").status_code == 403
    assert client.post("/api/v1/change", data={"csrf": "wrong"}).status_code == 403
    assert client.post("/api/v1/change", data={"csrf": token}).status_code == 200
    assert client.post("/api/v1/change", headers={CSRF_HEADER: token}).status_code == 200


def test_of_a_machine_without_secrets_only_browsers_need_the_token_of_a_page() -> None:
    client = visitor(site())
    assert client.post("/api/v1/change").status_code == 200
    assert client.post("/api/v1/change", headers={"Origin": SITE}).status_code == 403
    assert client.post("/api/v1/change", data={"a": "b"}).status_code == 403
    token = form_token(client.get("/form").text)
    answer = client.post("/api/v1/change", headers={"Origin": SITE, CSRF_HEADER: token})
    assert answer.status_code == 200


def test_a_bearer_needs_no_token_of_a_page() -> None:
    client = visitor(site(token=TOKEN))
    assert client.post("/api/v1/change", headers={**BEARER, "Origin": SITE}).status_code == 200


def test_a_read_only_site_changes_nothing() -> None:
    refused = visitor(site(read_only=True, token=TOKEN)).post("/api/v1/change", headers=BEARER)
    assert refused.status_code == 403
    assert "read_only" in refused.json()["detail"]


def test_every_answer_has_the_headers_that_browsers_obey() -> None:
    app = site()

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a surprise")

    client = visitor(app, raise_server_exceptions=False)
    for path in ("/form", "/api/v1/me", "/nowhere", "/broken", "//"):
        headers = client.get(SITE + path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Cache-Control"] == "no-store", path


@pytest.mark.parametrize("path", ["/../etc/passwd", "/a/./b", "//evil.example", "/%2e%2e/x", "/%00",
                                  "/a%5cb", "/%0d%0aSet-Cookie:x"])  # fmt: skip
def test_a_strange_path_is_refused(path: str) -> None:
    # httpx would tidy it, so it is written into the scope.
    app = site()

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        from urllib.parse import unquote  # noqa: PLC0415

        await app({**scope, "path": unquote(path)}, receive, send)

    answer = TestClient(asked, base_url=SITE, client=("127.0.0.1", 1)).get("/")
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


def test_a_body_over_a_mebibyte_is_refused_unread() -> None:
    client = visitor(site())
    json = {"Content-Type": "application/json"}
    large = client.post("/api/v1/change", content=b"x" * ((1 << 20) + 1), headers=json)
    assert large.status_code == 413
    pieces = client.post("/api/v1/change", content=(b"x" * 65536 for _ in range(17)), headers=json)
    assert pieces.status_code == 413


@pytest.mark.parametrize("body", [b"[" * 500 + b"]" * 500, b"[" * 50_000, b'{"a":' * 200])
def test_a_deep_body_is_refused(body: bytes) -> None:
    answer = visitor(site()).post(
        "/api/v1/change", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "deeper than" in answer.json()["detail"]


def test_brackets_in_texts_and_side_by_side_are_not_deep() -> None:
    body = b"[" + b'"[[[[\\"{{{",' * 200 + b"[],{}," * 200 + b"1]"
    answer = visitor(site()).post(
        "/api/v1/change", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_utf_8_is_refused(kind: str) -> None:
    answer = visitor(site()).post(
        "/api/v1/change", content=b'"\xff\xfe"', headers={"Content-Type": kind}
    )
    assert answer.status_code == 400


def test_mounted_in_another_application_its_users_are_ours() -> None:
    def user(connection: HTTPConnection) -> str | None:
        return connection.headers.get("X-User")

    app = create_app(database(), authenticated_by=user, settings=Web(token=TOKEN))

    @app.get("/api/v1/me")
    def me(asking: Who) -> str:
        return asking

    around = TestClient(Starlette(routes=[Mount("/jobs", app)]), base_url="https://shop.example")
    assert around.get("/jobs/api/v1/me", headers={"X-User": "ann"}).json() == "ann"
    assert around.get("/jobs/api/v1/me").status_code == 403
    assert around.get("/jobs/api/v1/me", headers=BEARER).status_code == 403
    assert around.get("/jobs/livez").status_code == 200


def test_mounted_without_users_of_another_application_the_sign_in_stays_below_its_path() -> None:
    app = create_app(database(), settings=Web(**ADDRESS))

    @app.get("/form")
    def form() -> Response:
        return HTMLResponse("hello")

    around = TestClient(
        Starlette(routes=[Mount("/jobs", app)]), base_url=SITE, follow_redirects=False
    )
    sent = around.get("/jobs/form", headers={"Accept": "text/html"})
    assert sent.headers["location"] == "/jobs/sign-in?next=/form"
    page = around.get(sent.headers["location"])
    answer = around.post(
        "/jobs/sign-in", data={**ADDRESS, "csrf": form_token(page.text), "next": "/form"}
    )
    assert answer.headers["location"] == "/jobs/form"
    assert "Path=/jobs" in answer.headers["set-cookie"]
    assert around.get("/jobs/form").text == "hello"


@pytest.mark.parametrize(
    "bad", ["<script>alert(1)</script>", '"><img src=x>', "a\x00b\x1b[31m\u202e"]
)
def test_what_is_typed_into_the_form_comes_back_as_text(bad: str) -> None:
    client = visitor(site(**ADDRESS), follow_redirects=False)
    page = client.get("/sign-in", params={"next": bad}).text
    data = {"user": bad, "password": bad, "csrf": form_token(page), "next": bad}
    refused = client.post("/sign-in", data=data)
    assert refused.status_code == 403
    for text in (page, refused.text):
        assert bad not in text
        assert not {"\x00", "\x1b", "\u202e"} & set(text)
    moved = client.post("/sign-in", data={**ADDRESS, "csrf": form_token(page), "next": bad})
    assert moved.headers["location"] == "/"


@pytest.mark.parametrize(
    "cookie", ["", "=", "a" * 8000, "jobvisor=\x01;;;=;", '"' * 100, "a=b; a=c"]
)
def test_a_strange_cookie_is_none(cookie: str) -> None:
    client = visitor(site(**ADDRESS))
    assert client.get("/api/v1/me", headers={"Cookie": cookie}).status_code == 401


def test_the_name_that_another_application_gives_is_bounded() -> None:
    app = create_app(database(), authenticated_by=lambda _: "ann" * 1000)

    @app.get("/api/v1/me")
    def me(asking: Who) -> str:
        return asking

    assert visitor(app).get("/api/v1/me").json() == ("ann" * 34)[:100]


def test_it_is_ready_where_the_database_answers_and_the_family_there_serves_it(
    tmp_path: Path,
) -> None:
    def ready(client: Client, state_dir: str | None = None) -> tuple[int, dict[str, bool]]:
        answer = visitor(create_app(client, state_dir=state_dir)).get("/readyz")
        return answer.status_code, answer.json()

    well = {"ready": True, "database": True, "family": True}
    assert ready(database()) == (200, well)
    assert ready(database(), str(tmp_path)) == (503, {**well, "ready": False, "family": False})
    with Client(f"sqlite:///{tmp_path}") as nowhere:
        assert ready(nowhere) == (503, {**well, "ready": False, "database": False})


@pytest.mark.parametrize(
    ("told", "serves"),
    [
        ({}, True),
        ({"state": "degraded", "degraded": ["web: ..."]}, True),
        ({"state": "stopping"}, False),
        ({"workers": [{"state": "booting"}]}, False),
        ({"written_at": 0}, False),
        ({"pid": 8}, False),
    ],
)
def test_a_family_serves_while_it_is_there_and_has_a_worker(
    told: dict[str, Any], serves: bool
) -> None:
    status = {"pid": 7, "state": "running", "written_at": SYSTEM.now_ms(), "degraded": []}
    assert is_serving({**status, "workers": [{"state": "idle"}], **told}, 7) is serves
    assert not is_serving(None, 7)
    assert not is_serving(status, None)


def verbs() -> list[tuple[str, str]]:
    """Method and address of everything that may change something."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return sorted(
        (method, re.sub(r"\{[^}]*\}", "1", route.path))
        for route in routes
        for method in (route.methods or set()) - {"GET", "HEAD"}
    )


def test_no_verb_is_without_a_guard() -> None:
    """Against a page of somebody else's, and on a site that is read-only."""
    assert len(verbs()) > 20
    forged = visitor(create_app(database()))
    reader = visitor(create_app(database(), settings=Web(read_only=True)))
    for method, address in verbs():
        assert forged.request(method, address, headers={"Origin": SITE}).status_code == 403, address
        if address not in (
            "/sign-in",
            "/sign-out",
            "/theme",
        ):  # they change the browser's cookies alone
            assert reader.request(method, address).status_code == 403, address
