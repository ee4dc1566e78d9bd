"""The pages in Debian's own browser, over a real family: what an operator does with them and sees there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, Route, expect

from jobvisor import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.app import create_app
from tests.postgres import shared
from tests.proxy import Proxy
from tests.supervisor.web.browsing import PATIENCE_MS, Server, Visit, chromium, visit
from tests.supervisor.web.serving import served
from tests.system.harness import MARK, House
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(600),  # a browser on a machine that runs other tests beside
]

expect.set_options(timeout=PATIENCE_MS)

TASKS = (
    MARK
    + """
import ctypes, resource

@task(retries=1, retry="0s")
def send(to: str, *, password: str = "") -> str:
    print("talking to the server of", to, flush=True)
    if to.endswith("@nowhere") and not os.path.exists("mended"):
        raise ConnectionError(f"no route to {to}")
    return f"sent to {to}"

@task(retries=0)
def crash() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)

@task(retries=0)
def slow(ctx: Context) -> None:
    for page in range(1_000_000):
        ctx.progress(page, total=1_000_000, note="reading")
        print("page", page, flush=True)
        ctx.check()
        time.sleep(0.05)  # task body
"""
)

PAGES = {
    "overview": "/", "overview of a day": "/?range=24h", "queues": "/queues", "jobs": "/jobs",
    "failed jobs": "/jobs?state=failed", "nothing": "/jobs?task=nowhere", "failures": "/failures",
    "workers": "/workers", "families": "/families", "tasks": "/tasks", "actions": "/actions",
    "schedules": "/schedules", "limits": "/limits", "blocked jobs": "/jobs?state=blocked",
    "enqueue": "/tasks/enqueue?task=app:send",
}  # fmt: skip


class World:
    """A family with jobs that have failed, crashed, and run; its pages, and a browser."""

    def __init__(self, house: House, server: Server, browser: Browser) -> None:
        self.house = house
        self.server = server
        self.browser = browser
        client = house.client
        self.failed = [house.enqueue("send", f"{name}@nowhere") for name in ("ada", "bob", "eve")]
        self.crashed = house.enqueue("crash")
        self.done = client.enqueue("app:send", "joe@home", password="hunter2").id
        house.wait_finished([*self.failed, self.crashed, self.done])
        self.running = house.enqueue("slow")
        house.wait_state(self.running, "running")
        client.cancel(client.enqueue(client.call("app:send", "x", options={"run_in": "1h"})))
        self.blocked = self._that_waits(client)

    def _that_waits(self, client: Client) -> int:
        """What is enqueued when and how many at once, under the longest names; a job that is blocked."""
        call = client.call("app:crash", options={"limit": f"nowhere:{'k' * 480}", "keep": "1h"})
        blocked = client.enqueue(call).id
        self.house.wait_state(blocked, "blocked")
        client.pause("q" * 100)
        client.set_fair("q" * 100)
        client.pause(task=f"no.{'t' * 390}")
        client.limits.set("l" * 100, concurrency=10_000, rate="1000000/366d")
        client.schedules.add("s" * 400, "app:send", args=["x" * 400], every="366d")
        client.schedules.add("paused", "app:send", args=["x"], cron="@yearly", paused=True)
        return blocked

    def addresses(self) -> dict[str, str]:
        """Every page there is, by a name."""
        return PAGES | {
            "failed job": f"/jobs/{self.failed[0]}",
            "crashed job": f"/jobs/{self.crashed}",
            "succeeded job": f"/jobs/{self.done}",
            "running job": f"/jobs/{self.running}",
            "blocked job": f"/jobs/{self.blocked}",
            "copy": f"/jobs/{self.failed[0]}/copy",
            "stack": f"/jobs/{self.running}/stack",
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with chromium() as browser:
        house = House(tmp_path_factory.mktemp("site") / "house", TASKS, processes=3)
        server = Server(house.folder / "config.toml")
        try:
            house.start()
            server.start()
            yield World(house, server, browser)
        finally:
            server.stop()
            server.client.close()
            house.close()


@pytest.fixture
def window(world: World) -> Iterator[Visit]:
    """Signed in, as wide as a desk has it; in the end it had nothing to complain about."""
    with visit(world.browser, world.server.url, viewport={"width": 1400, "height": 900}) as made:
        made.sign_in()
        yield made
        assert made.complaints == []


def state_is(page: Page, state: str) -> None:
    expect(page.locator("main .title .chip").first).to_have_text(state)


# -- what an operator does


def test_a_failed_job_is_found_read_and_requeued_and_is_seen_to_succeed(
    world: World, window: Visit
) -> None:
    page = window.page
    page.get_by_role("link", name="Failures", exact=True).click()
    row = page.get_by_role("row", name=re.compile("ConnectionError"))
    row.get_by_role("link", name=re.compile("^job ")).click()
    expect(page.get_by_role("group", name="Traceback").first).to_contain_text(
        "raise ConnectionError"
    )
    page.get_by_text("What it said last").first.click()
    expect(page.get_by_role("group", name="What it said").first).to_contain_text("talking to")
    state_is(page, "failed")
    expect(page.locator("[data-live-state]")).to_have_text("live")
    world.house.touch("mended")
    page.get_by_role("button", name="Requeue").click()
    state_is(page, "succeeded")
    expect(page.get_by_role("group", name="Result")).to_contain_text("sent to")


def test_a_crashed_job_shows_where_it_stood(world: World, window: Visit) -> None:
    page = window.page
    page.goto(f"/jobs/{world.crashed}")
    expect(page.get_by_role("group", name="Where it stood")).to_contain_text("in crash")
    expect(page.get_by_text("SIGSEGV").first).to_be_visible()


def test_a_running_job_is_watched_and_cancelled(world: World, window: Visit) -> None:
    page = window.page
    job = world.house.enqueue("slow")
    page.goto(f"/jobs/{job}")
    state_is(page, "running")
    expect(page.get_by_role("progressbar")).to_be_visible()
    said = page.get_by_role("group", name="What it says")
    expect(said).to_contain_text("page 0")
    before = len(said.inner_text())
    eventually(lambda: len(said.inner_text()) > before + 20, what="the log goes on by itself")
    page.get_by_role("button", name="Cancel").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(f"Cancel job {job}?")
    question.get_by_role("link", name="No", exact=True).click()
    state_is(page, "running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
    state_is(page, "cancelled")


def test_a_group_of_failures_is_requeued_after_a_question_that_says_how_many(
    world: World, window: Visit
) -> None:
    world.house.touch("mended")
    page = window.page
    jobs = [each.id for each in world.server.client.list(state="failed") if each.task == "app:send"]
    page.goto("/failures")
    row = page.get_by_role("row", name=re.compile("app:send"))
    row.get_by_role("button", name="Requeue").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(f"Requeue {len(jobs)} job")
    question.get_by_role("button", name=re.compile("Requeue")).click()
    expect(page.locator("[data-said]")).to_contain_text("requeued")
    expect(row).to_have_count(0)
    world.house.wait_finished(jobs)
    page.get_by_role("link", name="Actions").click()
    expect(page.get_by_role("row", name=re.compile("ann.*requeue")).first).to_be_visible()


def test_a_copy_runs_with_changed_arguments(world: World, window: Visit) -> None:
    page = window.page
    page.goto(f"/jobs/{world.done}")
    page.get_by_role("link", name="Run a copy").click()
    expect(page.get_by_label("Arguments by name")).to_have_value(re.compile(r"\*\*\*"))
    page.get_by_label("Arguments", exact=True).fill('["max@home", ')
    page.get_by_role("button", name="Run the copy").click()
    expect(page.get_by_role("alert")).to_contain_text("no JSON")
    page.get_by_label("Arguments", exact=True).fill('["max@home"]')
    page.get_by_role("button", name="Run the copy").click()
    state_is(page, "succeeded")
    expect(page.get_by_role("group", name="Result")).to_contain_text("sent to max@home")
    window.complaints.clear()  # of the 422, which the browser tells too


def test_new_jobs_and_states_come_by_themselves(world: World, window: Visit) -> None:
    page = window.page
    page.goto("/jobs?task=app:send")
    expect(page.locator("[data-live-state]")).to_have_text("live")
    page.locator('input[name="id"]').nth(1).check()
    chosen = page.locator('input[name="id"]').nth(1).get_attribute("value")
    job = world.house.enqueue("send", "new@home")
    expect(page.locator(f"#job-{job} .chip")).to_have_text("succeeded")
    assert page.locator('input[name="id"]:checked').get_attribute("value") == chosen
    expect(page.locator("[data-chosen]")).to_have_text("1 chosen:")
    # Where its question cannot be fetched the form is sent as it is, with the button that was pressed.
    page.route("**/jobs/bulk", lambda route: route.abort() if asks(route) else route.continue_())
    page.get_by_role("button", name="Requeue", exact=True).click()
    expect(page.get_by_role("heading", name="Requeue 1 job?")).to_be_visible()
    window.complaints.clear()  # of the request that was cut


def asks(route: Route) -> bool:
    return route.request.resource_type == "fetch"


def test_a_page_says_when_the_server_is_lost_and_when_it_is_back(
    world: World, window: Visit
) -> None:
    page = window.page
    page.goto(f"/jobs/{world.running}")
    expect(page.locator("[data-live-state]")).to_have_text("live")
    world.server.stop()
    expect(page.locator("[data-lost]")).to_contain_text("has not answered since")
    expect(page.locator("[data-status]")).to_have_text("The server does not answer.")
    job = world.house.enqueue("send", "meanwhile@home")
    world.house.wait_finished([job])
    world.server.start()
    expect(page.locator("[data-live-state]")).to_have_text("live")
    expect(page.locator("[data-lost]")).to_be_hidden()
    expect(page.locator("[data-status]")).to_have_text("The server answers again.")
    page.goto("/jobs")
    expect(page.locator(f"#job-{job}")).to_be_visible()
    window.complaints.clear()  # of the time without a server


def test_a_page_says_when_the_database_is_lost_and_when_it_is_back(world: World) -> None:
    """And a page that is opened meanwhile says so, too; of a database that has a network before it."""
    url = shared().new_database()
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    with Proxy(place.hostname, place.port) as proxy, Client(proxy.url(url)) as client:
        client.migrate()
        job = client.enqueue("app:send", "a@b.c").id
        with (
            served(create_app(client, settings=Web()), timeout_graceful_shutdown=1) as port,
            visit(world.browser, f"http://127.0.0.1:{port}", color_scheme="dark") as made,
        ):
            page = made.page
            page.goto(f"/jobs/{job}")
            expect(page.locator("[data-live-state]")).to_have_text("live")
            proxy.cut()
            expect(page.locator("[data-lost]")).to_contain_text(
                "The database does not answer since"
            )
            expect(page.locator("[data-status]")).to_have_text("The database does not answer.")
            state_is(page, "pending")
            other = made.context.new_page()
            answer = other.goto("/queues")
            assert answer
            assert answer.status == 503
            expect(other.locator("[data-error] h1")).to_be_visible()
            made.shot("database-lost-dark")
            assert _violations(made, "banner") == _violations(made, "503", other) == []
            proxy.restore()
            expect(page.locator("[data-lost]")).to_be_hidden()
            expect(page.locator("[data-status]")).to_have_text("All is answered again.")
            other.reload()
            expect(other.get_by_role("heading", name="Queues", exact=True)).to_be_visible()


def test_keys_lead_from_page_to_page(world: World, window: Visit) -> None:
    page = window.page
    page.goto("/")
    expect(page.locator("[data-live-state]")).to_have_text("live")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("gj")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    expect(page.locator("[data-live-state]")).to_have_text("live")  # its script has begun
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("g?/")
    expect(page.get_by_label("Search")).to_have_value("g?/")
    page.get_by_label("Search").blur()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("g j")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_colours_stay_as_they_were_chosen(world: World, window: Visit) -> None:
    page = window.page
    page.get_by_role("button", name=re.compile("Colours")).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(230, 233, 238)"
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


# -- what every page must be


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_legible_for_everybody_and_fits_its_width(world: World, theme: str) -> None:
    """axe finds no violation, nothing is wider than the window, and the browser complains of nothing."""
    found: list[str] = []
    with visit(world.browser, world.server.url, color_scheme=theme) as made:
        made.page.goto("/sign-in")
        found += _violations(made, f"sign in {theme}")
        made.sign_in()
        for width in (1400, 360):
            made.page.set_viewport_size({"width": width, "height": 800})
            for name, address in world.addresses().items():
                made.page.goto(address)
                expect(made.page.locator("h1").first).to_be_visible()
                found += _violations(made, f"{name} {theme} {width}")
                wide = made.page.evaluate("document.documentElement.scrollWidth")
                found += [f"{name} is {wide} wide at {width}"] if wide > width else []
                made.shot(f"{name}-{theme}-{width}")
        _open_questions(world, made, found, theme)
        assert found == []
        assert made.complaints == []


def _open_questions(world: World, made: Visit, found: list[str], theme: str) -> None:
    """Dialogs are pages, too; and the page of an error."""
    made.page.set_viewport_size({"width": 1400, "height": 900})
    made.page.goto(f"/jobs/{world.running}")
    made.page.get_by_role("button", name="Cancel").click()
    expect(made.page.get_by_role("dialog")).to_be_visible()
    found += _violations(made, f"question {theme}")
    made.shot(f"question-{theme}-1400")
    made.page.get_by_role("link", name="No", exact=True).click()
    made.page.goto(f"/jobs/{world.blocked}")
    made.page.get_by_role("button", name="Reschedule...").click()
    expect(made.page.get_by_role("dialog").get_by_label("When")).to_be_visible()
    found += _violations(made, f"time {theme}")
    made.shot(f"time-{theme}-1400")
    made.page.goto("/nowhere")
    found += _violations(made, f"error {theme}")
    made.shot(f"error-{theme}-1400")
    made.complaints[:] = [each for each in made.complaints if "404" not in each]


def _violations(made: Visit, name: str, page: Page | None = None) -> list[str]:
    told = Axe().run(page or made.page).response["violations"]
    return [
        f"{name}: {each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary'][:200]}"
        for each in told
    ]


def test_all_works_without_a_script_but_for_its_being_live(world: World) -> None:
    job = world.house.enqueue("slow")
    world.house.wait_state(job, "running")
    with visit(world.browser, world.server.url, java_script_enabled=False) as made:
        page = made.sign_in(then=f"/jobs/{job}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name=f"Cancel job {job}?")).to_be_visible()
        page.get_by_role("button", name="Cancel it").click()
        expect(page.locator("[data-said]")).to_contain_text("asked to leave")
        world.house.wait_finished([job])
        page.reload()
        state_is(page, "cancelled")
        page.get_by_role("button", name="Requeue").click()
        expect(page.locator("[data-said]")).to_contain_text("starts over")
        world.house.wait_state(job, "running")
        page.goto("/jobs?task=app:slow&state=running")
        page.get_by_role("checkbox", name=f"Choose job {job}").check()
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel 1 job").click()
        expect(page.locator("[data-said]")).to_contain_text("asked to leave")
        page.get_by_role("button", name=re.compile("Colours")).click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.goto("/?range=24h")
        page.get_by_text("Numbers").first.click()
        expect(page.get_by_role("table").first).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert made.complaints == []


@pytest.mark.parametrize("scripts", [True, False])
def test_when_and_how_many_is_changed_with_a_script_and_without(
    world: World, scripts: bool
) -> None:
    client = world.house.client
    client.schedules.add("nightly", "app:send", args=["a@home"], cron="0 3 1 1 *")
    later = client.enqueue(client.call("app:send", "later@home", options={"run_in": "1h"})).id
    with visit(world.browser, world.server.url, java_script_enabled=scripts) as made:
        page = made.sign_in(then="/schedules")
        said = page.locator("[data-said]")
        row = page.get_by_role("row", name=re.compile("^nightly"))
        row.get_by_role("button", name="Pause").click()
        expect(said).to_have_text("Schedule nightly is paused.")
        row.get_by_role("button", name="Resume").click()
        expect(said).to_have_text("Schedule nightly goes on.")
        row.get_by_role("button", name="Run now").click()
        expect(said).to_contain_text("is what schedule nightly enqueues")
        page.goto("/schedules")
        row.get_by_role("button", name="Remove...").click()
        page.get_by_role("button", name="Remove it").click()
        expect(said).to_have_text("Schedule nightly is gone.")
        page.goto("/limits")
        page.get_by_label("Name").fill("gpu")
        page.get_by_label("Concurrency").fill("2")
        page.get_by_role("button", name="Set it").click()
        expect(said).to_have_text("Limit gpu: 2 at once.")
        page.get_by_role("row", name=re.compile("^gpu")).get_by_role("button").click()
        page.get_by_role("button", name="Remove it").click()
        expect(said).to_have_text("Limit gpu is gone.")
        page.goto("/queues")
        row = page.get_by_role("row", name=re.compile("^default"))
        row.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Pause it").click()
        expect(said).to_have_text("Queue default is paused.")
        row.get_by_role("button", name="Resume").click()
        expect(said).to_have_text("Queue default is resumed.")
        page.goto(f"/jobs/{later}")
        page.get_by_role("button", name="Reschedule...").click()
        page.get_by_role("textbox", name="When").fill("2h")
        page.get_by_role("button", name="Reschedule it").click()
        expect(said).to_contain_text(f"Job {later}")
        page.get_by_role("button", name="Run now").click()
        world.house.wait_finished([later])
        assert made.complaints == []
