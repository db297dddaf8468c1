"""The page in a real browser: what draws, sorts, filters and searches, and that everybody can use it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from test_report import SKILLS, page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenarios, one with labels and one without answers, with exports and the published table."""
    results = tmp_path_factory.mktemp("results")
    skills = {**SKILLS, "peft-prefix": 0.5, "deepspeed": 0.7}
    page(results, ["classification", "domain"], [1, 2], ["fp32", "int8"], skills, rounds=3)
    return results


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as program, program.chromium.launch(executable_path=CHROMIUM) as found:
        yield found


def drawn(browser: Browser, results: Path, asked: list[str]) -> tuple[Page, float]:
    """The page with all its plots, and its CPU seconds; ``asked`` gets what it asks for and which errors it raises."""
    shown = browser.new_page()
    shown.set_default_timeout(120_000)
    measures = shown.context.new_cdp_session(shown)
    measures.send("Performance.enable", {"timeDomain": "threadTicks"})
    shown.on("pageerror", lambda error: asked.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto((results / "report.html").as_uri())
    shown.wait_for_selector("html[data-ready]", state="attached")
    metrics = measures.send("Performance.getMetrics")["metrics"]
    return shown, next(one["value"] for one in metrics if one["name"] == "TaskDuration")


@pytest.fixture(scope="module")
def opened(browser: Browser, results: Path) -> Iterator[Page]:
    asked: list[str] = []
    yield drawn(browser, results, asked)[0]
    assert asked == [(results / "report.html").as_uri()]


def test_every_plot_is_drawn_and_the_first_follows_the_choice(opened: Page) -> None:
    # The first screen's, then of each scenario differences and loss, and one of confusion.
    assert opened.locator(".plot svg, .confusion svg").count() == 1 + 2 * 2 + 1
    for label, axis in (("stored size", "size of adapter"), ("training time", "training time (s)")):
        opened.get_by_role("radio", name=label).check()
        opened.get_by_text(axis).first.wait_for()
    opened.locator("#scenario").select_option(index=1)
    opened.locator("#cost").get_by_text("perplexity").wait_for()
    assert opened.locator(".card:visible").get_attribute("aria-label") == "domain with tiny"


def test_a_table_is_sorted_by_the_keyboard(opened: Page) -> None:
    table = opened.locator("table.sortable").nth(1)
    heading = table.locator("th").nth(1)
    orders = []
    for order in ("ascending", "descending"):
        heading.locator("button").press("Enter")
        assert heading.get_attribute("aria-sort") == order
        orders.append([float(text) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()])
    assert orders == [sorted(orders[0]), sorted(orders[0], reverse=True)]


def test_answers_are_filtered_searched_and_paged(opened: Page) -> None:
    box = opened.locator("[data-answers]").first
    state = box.get_by_role("status")
    assert state.inner_text() == "1 to 25 of 120 rows"
    box.get_by_label("Show").select_option("fixed")
    assert set(box.locator("tbody td.score").all_inner_texts()) == {"fixed"}
    assert re.fullmatch(r"1 to 25 of \d\d rows", state.inner_text())
    box.get_by_role("button", name="Next").click()
    assert state.inner_text().startswith("26 to ")
    box.get_by_label("Show").select_option("all")
    box.get_by_label("Search").fill("QUESTION 119")
    assert state.inner_text() == "1 to 1 of 1 rows"


def test_a_cell_of_the_confusion_is_marked_and_can_be_left_again(opened: Page) -> None:
    box = opened.locator("[data-answers]").first
    state, everything = box.get_by_role("status"), box.get_by_role("button", name="Show all cells")
    box.get_by_label("Search").fill("")
    assert not everything.is_visible()
    box.locator(".confusion svg path[aria-roledescription='rect mark']").first.click(force=True)
    found = re.fullmatch(r"this cell \((\d+)\)", box.locator(".kind option").first.inner_text())
    assert found
    assert state.inner_text().endswith(f" of {found[1]} rows")
    assert box.locator(".confusion svg path[stroke*='--text']").count() == 1
    assert set(box.locator("tbody td.score").all_inner_texts()) <= {"fixed", "broken", "both right", "both wrong"}
    everything.click()
    assert state.inner_text() == "1 to 25 of 120 rows"


def test_every_point_of_the_first_plot_is_named(opened: Page) -> None:
    for cost in opened.locator("[name=cost]").all():
        cost.check()
        opened.wait_for_timeout(300)
        shown = opened.locator("#cost svg .labels_marks text").evaluate_all(
            "found => found.filter((one) => one.getAttribute('opacity') !== '0').flatMap((one) => one.textContent.split(', '))"
        )
        assert {*SKILLS, "peft-prefix", "deepspeed"} - {"base"} <= set(shown)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_nobody_is_shut_out(opened: Page, scheme: str, width: int) -> None:
    opened.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    # Only contrast depends on the scheme.
    rules = {"resultTypes": ["violations"], **({"runOnly": ["color-contrast"]} if scheme == "dark" else {})}
    violations = Axe().run(opened, options=rules).response["violations"]
    found = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:150] for node in one["nodes"][:5]]) for one in found] == []


def test_a_print_is_light_and_leaves_out_what_only_a_screen_can_do(opened: Page) -> None:
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.locator(".controls").first.is_visible()
    # A table's heading is repeated on each sheet, and plots are no wider than one.
    assert opened.locator("table.sortable th button").first.evaluate("e => getComputedStyle(e).display") == "contents"
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert max(opened.locator(".plot svg").evaluate_all("all => all.map((svg) => svg.width.baseVal.value)")) <= 660
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    opened.emulate_media(media="screen")


def test_a_narrow_window_cuts_no_legend_off(opened: Page) -> None:
    opened.set_viewport_size({"width": 400, "height": 800})
    inside = "all => all.every((legend) => legend.getBoundingClientRect().right <= innerWidth)"
    opened.wait_for_function(f"({inside})([...document.querySelectorAll('.role-legend')])", timeout=5000)


def test_five_thousand_rows_open_within_a_second(browser: Browser, tmp_path: Path) -> None:
    page(tmp_path, ["classification"], [1], test_rows=5000)
    shown, seconds = drawn(browser, tmp_path, [])
    assert shown.get_by_role("status").inner_text() == "1 to 25 of 5,000 rows"
    assert seconds < 1
