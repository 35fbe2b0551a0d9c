"""The page in a real headless Chromium: it draws, sorts, compares, fits a phone, prints, and asks nobody for anything.

Needs Chromium with its chromedriver, and selenium; skipped, visibly, where one of them is absent.
"""

import base64
import json
import re
from pathlib import Path

import pytest

import fastmagn.reporting.document as document
from fastmagn.reporting.document import make_report, write_report
from fastmagn.reporting.figures import to_svg
from tests.helpers.browser import axe_script, media, needs_browser, screen
from tests.helpers.report_folders import C19, rewrite, with_protocols, write_logits, write_run
from tests.reporting.test_more_tables import add_measures

pytestmark = needs_browser
METHODS = ("standard", "at", "trades", "rse", "augmix", "magn", "magn_augmix")
METHODS += ("cutout", "mixup", "cutmix", "autoaugment", "trivialaugment", "randaugment", "ta_noise", "dign")
EVIL = "<script>console.error('run')</script>"


@pytest.fixture(scope="module")
def svg_only():
    """The page shows SVG; drawing PNG as well would take as long again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "to_files", lambda figure: {"png": b"png", "svg": to_svg(figure)})
        yield


@pytest.fixture(scope="module")
def pages(tmp_path_factory, svg_only) -> dict[str, str]:
    """Addresses of three pages: two runs with logits, one run, and 13 runs on two networks with a hostile name."""
    folder = tmp_path_factory.mktemp("pages")
    means = {name: 0.5 + 0.02 * i for i, name in enumerate(C19)}
    two = [write_run(folder / method, means, method=method, data="digits", epochs=8) for method in ("standard", "magn")]
    for number, run in enumerate(two):
        rewrite(run, add_measures)
        write_logits(with_protocols(run), skill=2.0 + number, draw=number)
    many = [
        write_run(folder / f"many-{method}", 0.6 + 0.02 * i, method=method, clean=0.8 + 0.01 * i)
        for i, method in enumerate(METHODS)
    ]
    many.append(write_run(folder / "seed", 0.65, seed=1))
    many.append(write_run(folder / "dense", 0.65, network="densenet121", method=EVIL))
    runs = {"two": two, "one": two[:1], "many": many}
    for name, paths in runs.items():
        write_report(make_report(paths), folder / f"report-{name}")
    return {name: (folder / f"report-{name}" / "report.html").as_uri() for name in runs}


def column(driver, table: str, number: int) -> list[str]:
    """The texts of one column of the first table that a selector finds."""
    script = """const rows = document.querySelector(arguments[0]).tBodies[0].rows;
        return [...rows].map(row => row.cells[arguments[1]].innerText);"""
    return driver.execute_script(script, table, number)


def choose(driver, which: str, label: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("css selector", f"[data-pick={which}]")).select_by_visible_text(label)


@pytest.mark.parametrize("name", ["two", "one", "many"])
def test_no_error_and_no_request(name, pages, browser):
    browser.get(pages[name])
    for summary in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", summary)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked[0] == pages[name]
    assert all(address.startswith("data:") for address in asked[1:])
    assert browser.execute_script("return document.scripts.length") == 1


@pytest.mark.parametrize("name", ["two", "one", "many"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_figure_is_drawn_and_the_page_is_no_wider_than_the_screen(name, width, pages, browser):
    screen(browser, width)
    browser.get(pages[name])
    script = """
        for (const each of document.querySelectorAll("details")) each.open = true;
        for (const each of document.querySelectorAll("[data-item]")) each.hidden = false;
        return [...document.images].map(image => {
            const box = image.getBoundingClientRect();
            return [image.alt, image.complete, image.naturalWidth, box.width, box.height];
        });"""
    images = browser.execute_script(script)
    for alt, complete, natural, *shown in images:
        assert alt
        assert complete
        assert natural > 0, alt
        assert min(shown) >= 20, alt
    folder = Path(pages[name].removeprefix("file://")).parent
    num_drawn = len(list((folder / "figures").glob("*.svg"))) - 2 * (
        name == "one"
    )  # one run: no diagrams beside others
    num_items = len(browser.find_elements("css selector", "[data-heat]"))
    assert len(browser.find_elements("css selector", "img.drawing")) == num_drawn + 2 * num_items
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide == browser.execute_script("return document.documentElement.clientWidth") <= width
    reachable = """return [...document.querySelectorAll(".scroll")].every(
        box => box.scrollWidth <= box.clientWidth || box.tabIndex == 0);"""
    assert browser.execute_script(reachable)


def test_sorting_by_click_and_by_key(pages, browser):
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["many"])
    table = "#set0-summary ~ .figures .scroll table"
    before = column(browser, table, 0)
    headers = browser.find_elements("css selector", f"{table} th[data-column]")
    by_number = {int(header.get_attribute("data-column")): header for header in headers}
    assert sorted(by_number) == list(range(len(by_number)))
    (method,) = (header for header in headers if header.text == "Method")
    clean = by_number[3]  # ours, below "Clean"
    clean.find_element("tag name", "button").click()
    assert clean.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(browser, table, 3)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 10
    clean.find_element("tag name", "button").send_keys(Keys.ENTER)
    assert clean.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[0]) for text in column(browser, table, 3)]
    assert values == sorted(values)
    paper = column(browser, table, 4)
    by_number[4].find_element("tag name", "button").send_keys(Keys.SPACE)
    assert clean.get_attribute("aria-sort") is None
    ordered = column(browser, table, 4)
    known = [text for text in ordered if text != "–"]
    assert ordered == sorted(known, key=float, reverse=True) + ["–"] * (len(paper) - len(known))  # the unknown last
    assert 0 < len(known) < len(ordered)
    method.find_element("tag name", "button").click()
    assert method.get_attribute("aria-sort") == "ascending"
    names = column(browser, table, 0)
    assert sorted(names) == sorted(before)
    assert names == sorted(names, key=str.lower)
    assert names != before


def test_negative_numbers_sort_as_numbers(pages, browser):
    browser.get(pages["many"])
    choose(browser, "run", "Standard, ResNet-18")
    browser.find_element("css selector", "[data-difference] th[data-column='6'] button").click()
    means = [float(text.replace("−", "-")) for text in column(browser, "[data-difference]", 6)]
    assert means == sorted(means, reverse=True)
    names = column(browser, "[data-difference]", 0)
    assert sorted(names) == sorted(column(browser, "[data-heat='0']", 0))


def test_the_pickers_change_maps_and_what_is_shown(pages, browser):
    browser.get(pages["many"])
    opened = [column(browser, "[data-difference]", i) for i in range(1, 7)]
    choose(browser, "run", "MAGN, ResNet-18")
    choose(browser, "base", "AT, ResNet-18")
    caption = browser.find_element("css selector", "[data-difference] caption").text
    assert caption == "MAGN, ResNet-18 minus AT, ResNet-18"
    changed = [column(browser, "[data-difference]", i) for i in range(1, 7)]
    assert changed != opened
    assert changed == [["+8.0"] * 19] * 6  # 0.6 + 0.02 * 5 against 0.6 + 0.02 * 1
    shown = browser.execute_script("return [...document.querySelectorAll('.item')].filter(e => e.offsetParent).length")
    assert shown == 2 * 4  # both in heat maps, reliability, views and errors
    first, second = browser.find_elements("css selector", ".heats .chosen, .heats .compared")
    assert {first.find_element("tag name", "caption").text, second.find_element("tag name", "caption").text} == {
        "MAGN, ResNet-18",
        "AT, ResNet-18",
    }
    choose(browser, "base", "MAGN, ResNet-18")
    assert column(browser, "[data-difference]", 1) == ["0.0"] * 19
    choose(browser, "base", f"{EVIL}, DenseNet-121")
    assert EVIL in browser.find_element("css selector", "[data-difference] caption").text
    assert browser.get_log("browser") == []


def test_a_heat_maps_script_and_python_agree(pages, browser):
    """The difference that the page opens with was computed by Python; chosen again, by the script."""
    browser.get(pages["two"])
    script = "return [...document.querySelectorAll('[data-difference] td')].map(e => [e.innerText, e.className])"
    opened = browser.execute_script(script)
    text = Path(pages["two"].removeprefix("file://")).read_text()
    written = re.findall(r'<td class="(n d\d+)">([+−]?[\d.]+)</td>', text)
    assert [[shown, name] for name, shown in written] == opened
    assert len(written) == 19 * 6


def test_one_run_has_no_pickers(pages, browser):
    browser.get(pages["one"])
    assert not browser.find_element("css selector", ".pickers").is_displayed()
    assert not browser.find_elements("css selector", "[data-difference]")
    assert "Give the command two or more" in browser.find_element("tag name", "body").text


@pytest.mark.parametrize("name", ["two", "many"])
def test_a_phones_figures_are_drawn_for_it_and_are_whole_on_its_screen(name, pages, browser):
    """Nothing to scroll: the last series is there, and the text has about its own size."""
    script = """for (const each of document.querySelectorAll("details")) each.open = true;
        return [...document.querySelectorAll("figure > picture > img")].map(image => {
            const box = image.getBoundingClientRect();
            return [image.alt, box.left, box.right, box.width / image.naturalWidth];
        });"""
    screen(browser, 390)
    browser.get(pages[name])
    images = browser.execute_script(script)
    assert len(images) > 6
    for alt, left, right, scale in images:
        assert 0 <= left < right <= 390, alt
        assert 0.9 <= scale <= 1.1, alt


def test_no_row_leaves_half_of_a_wide_page_empty(pages, browser):
    """Each row of tables and figures, and of what is compared side by side."""
    screen(browser, 1400)
    browser.get(pages["two"])
    script = """return [...document.querySelectorAll(".figures, .beside")].flatMap(box => {
        const rows = new Map();
        for (const child of box.children) {
            if (child.hidden) continue;
            const filled = child.querySelector("picture > img, table, figure, ul") ?? child;
            const [at, edge] = [child.getBoundingClientRect(), filled.getBoundingClientRect()];
            const row = [...rows.keys()].find(top => Math.abs(top - at.top) < 40) ?? at.top;
            rows.set(row, Math.max(rows.get(row) ?? 0, edge.right));
        }
        return [...rows.values()].map(right => [box.parentElement.innerText.slice(0, 40), right]);
    });"""
    rows = browser.execute_script(script)
    assert len(rows) >= 10
    for where, right in rows:
        assert right > 900, where


def test_the_headline_is_first_and_the_warning_of_unlike_runs_is_across_the_top(pages, browser):
    screen(browser, 1400)
    browser.get(pages["two"])
    assert not browser.find_elements("css selector", ".unlike")
    browser.get(pages["many"])
    headlines = browser.find_elements("css selector", ".headline")
    assert headlines[0].text.startswith("ResNet-18: DIGN gains 25.5 points mCA c18 over Standard and gains 9.0 clean.")
    (warning,) = browser.find_elements("css selector", ".unlike")
    assert "Seeds: 0, 1 (Standard on ResNet-18);" in warning.text
    assert warning.location["y"] < 450
    assert warning.size["width"] > 1200


def test_dark_is_failure_on_light_and_on_dark_pages(pages, browser):
    """From the lowest accuracy to the highest the shades become lighter; the Fourier map is drawn for each."""
    browser.get(pages["two"])
    shades = """return [...document.querySelectorAll('.legend i')].filter(e => e.className.startsWith('s')).map(
        e => [Number(e.className.slice(1)), getComputedStyle(e).backgroundColor]);"""
    map_source = "return document.querySelector('img.shades').currentSrc"
    sources = {}
    for scheme in ("light", "dark"):
        media(browser, scheme=scheme)
        lights = [brightness(colour) for _, colour in sorted(browser.execute_script(shades))]
        assert len(lights) == 16
        assert lights == sorted(lights)
        assert lights[0] < 0.05 < 0.5 < lights[-1]
        sources[scheme] = browser.execute_script(map_source)
    assert sources["light"] != sources["dark"]
    for source in sources.values():
        svg = base64.b64decode(source.partition(",")[2])
        assert (b"#14171a" in svg) == (source == sources["dark"])


def test_what_made_the_views_is_beside_them(pages, browser):
    browser.get(pages["two"])
    tables = browser.find_elements("css selector", "table.made")
    assert len(tables) == 2
    assert [header.text for header in tables[1].find_elements("css selector", "thead th")] == [
        "image",
        "clean",
        "noisy",
    ]
    (first, *others) = tables[1].find_elements("css selector", "tbody tr")
    assert len(others) == 7
    assert re.fullmatch(r"1\s+crop moved by .* rotate [-+]\d\.\d°\s+sigma 0\.\d{3}", first.text, re.DOTALL)


def test_errors_and_views_are_there(pages, browser):
    browser.get(pages["two"])
    assert len(browser.find_elements("css selector", ".mistakes li")) == 24
    assert len(browser.find_elements("css selector", ".gallery img")) == 2 + 3


def test_without_scripts_every_run_is_there(pages, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(pages["many"])
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    shown = [table.is_displayed() for table in browser.find_elements("css selector", "[data-heat]")]
    assert shown == [True] * (len(METHODS) + 1)
    assert not browser.find_element("css selector", ".pickers").is_displayed()


def test_dark_pages_and_paper(pages, browser):
    browser.get(pages["two"])
    colours = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    light = browser.execute_script(colours)
    media(browser, scheme="dark")
    dark = browser.execute_script(colours)
    assert light[0] == "rgb(255, 255, 255)"
    assert brightness(dark[0]) < 0.05 < 0.75 < brightness(dark[1])
    media(browser, kind="print", scheme="dark")
    assert browser.execute_script(colours) == light
    assert not browser.find_element("css selector", ".pickers").is_displayed()
    assert not browser.find_element("tag name", "nav").is_displayed()


def test_print_to_pdf(pages, browser):
    browser.get(pages["two"])
    options = {"printBackground": True, "preferCSSPageSize": True}
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", options)["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20


def test_text_has_contrast_on_every_shade(pages, browser):
    """WCAG AA: 4.5 between text and background, on light and on dark pages."""
    browser.get(pages["two"])
    script = """return [...document.querySelectorAll('.legend i')].map(e => {
        const s = getComputedStyle(e); return [e.className, s.backgroundColor, s.color]; });"""
    for scheme in ("light", "dark"):
        media(browser, scheme=scheme)
        shades = {name: (back, ink) for name, back, ink in browser.execute_script(script)}
        assert len(shades) == 16 + 17
        assert len({back for back, _ in shades.values()}) == 33
        for name, (back, ink) in shades.items():
            high, low = sorted((brightness(back), brightness(ink)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def brightness(colour: str) -> float:
    """Relative luminance of an rgb(...) colour, 0..1, as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_script()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["two", "many"])
def test_axe_core_finds_no_barrier(name, scheme, axe, pages, browser):
    """WCAG 2.2 A and AA, and axe-core's best practices, with every part of the page open."""
    media(browser, scheme=scheme)
    browser.get(pages[name])
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run(document, {resultTypes: ['violations']}).then(arguments[0])")
    assert len(found["passes"]) > 10
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
