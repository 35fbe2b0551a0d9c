"""The documentation as a site: it builds without a warning, loads nothing from another host, and fits every screen."""

import html
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import fastmagn
from tests.helpers.browser import axe_script, media, needs_browser, screen
from tests.helpers.processes import ROOT, run
from tests.helpers.small_runs import made_once
from tests.helpers.tiers import slow_but

for _package in ("material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(_package, reason="needs the extra docs")

PAGES = sorted(path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md"))
BUSY = ("index", "api", "configuration", "troubleshooting", "methods/magn_augmix", "which_numbers", "corrupted_sets")
EQUATION = re.compile(r"\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$", re.DOTALL)
CODE = re.compile(r"^( *)```.*?^\1```$|``.+?``|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LOADING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
# What reaches beyond the window, or is cut off, though it does not lie in something that scrolls.
OUTSIDE = """
const found = [], limit = document.documentElement.clientWidth + 1;
for (const element of document.querySelectorAll("main *, header *")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || (box.right <= limit && box.left >= -1)) continue;
    let parent = element.parentElement, reachable = false;
    while (parent && !reachable) {
        const overflow = getComputedStyle(parent).overflowX;
        const edge = parent.getBoundingClientRect();
        reachable = ["auto", "scroll"].includes(overflow) && edge.right <= limit && edge.left >= -1;
        parent = parent.parentElement;
    }
    if (!reachable && !element.closest(".md-sidebar, .md-search, .md-dialog, .md-skip, .md-source, .md-tabs"))
        found.push(element.outerHTML.slice(0, 160));
}
return found;
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory, pytestconfig) -> Path:
    def build(folder: Path) -> None:
        run(["mkdocs", "build", "--strict", "-d", str(folder)], ROOT)  # -q would hide warnings from --strict

    return made_once(tmp_path_factory, pytestconfig, "site", build)


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    """The site on a server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Elements(HTMLParser):
    """The elements of a page: their names and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def source(page: str) -> str:
    """The text of a page without its code."""
    return CODE.sub("", (ROOT / "docs" / f"{page}.md").read_text())


@pytest.mark.process
def test_every_page_is_built_and_in_the_navigation(site):
    assert all((site / f"{page}.html").is_file() for page in PAGES)
    named = set(re.findall(r"([\w/]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == set(PAGES)


@pytest.mark.process
def test_no_page_or_style_loads_from_another_host(site):
    for path in site.rglob("*.html"):
        for tag, attributes in Elements(path.read_text()).found:
            address = attributes.get(LOADING.get(tag, "style")) or ""
            assert not re.search(r"(?:^|url\()\s*['\"]?(?:https?:)?//", address), (path, tag, address)
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", path.read_text()), path


@pytest.mark.process
def test_equations_are_mathml(site):
    """As many as the page's source has, on their own lines or within them; and none is left in LaTeX."""
    total = 0
    for page in PAGES:
        text = (site / f"{page}.html").read_text()
        found = EQUATION.findall(source(page))
        kinds = re.findall(r'<math xmlns="[^"]+" display="(\w+)">', text)
        assert sorted(kinds) == sorted("block" if block else "inline" for block, _ in found), page
        assert "arithmatex" not in text
        total += len(found)
    assert total > 100
    loss = re.search(r"<math.*?</math>", (site / "methods" / "magn.html").read_text())[0]
    shown = html.unescape(re.sub(r"<[^>]+>", "", loss))
    assert shown == "L=−logpy(x)+λ1py(x)KL(p(x)∥p(x+δ))"
    assert "<msub><mi>p</mi><mi>y</mi></msub>" in loss


def test_equations_are_readable_on_github_too():
    """There, a backslash before punctuation is lost, and a bar ends the cell of a table."""
    for page in PAGES:
        for block, inline in EQUATION.findall(source(page)):
            assert not re.search(r"\\[^a-zA-Z]", block or inline), (page, block or inline)
            assert "|" not in inline, (page, inline)


@pytest.mark.process
def test_the_configuration_has_every_field_with_its_default(site):
    """The independent list is the shipped file that holds every field."""
    text = (site / "configuration.html").read_text()
    found = re.findall(r'<h3 id="([\w.]+)">.*?<p class="facts">(.*?)</p>\s*<p>(.+?)</p>', text, re.DOTALL)
    defaults = {}
    for name, value in yaml.safe_load((ROOT / "configs" / "digits_quickstart.yaml").read_text()).items():
        defaults |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    assert [name for name, _, _ in found] == list(defaults)
    for name, facts, description in found:
        default = yaml.safe_load(re.search(r"default <code>(.*?)</code>", facts)[1])
        same = default == defaults[name] or default == pytest.approx(defaults[name], rel=1e-5)
        assert same, (name, default)
        assert len(re.sub("<.*?>", "", description)) > 10, name
    facts = {name: re.sub("<.*?>", "", each) for name, each, _ in found}
    assert facts["train.amp"].startswith("auto, bf16, fp16 or float32")
    assert facts["train.epochs"] == "a whole number; default 30; allowed: 1 or more"
    assert facts["data.image_size"] == "a whole number; default 224; allowed: 8..4096 px"


@pytest.mark.process
@pytest.mark.parametrize("name", fastmagn.__all__)
def test_the_api_has_each_public_name(site, name):
    """Its signature, its parameters with their types, and its examples as code."""
    text = (site / "api.html").read_text()
    (where,) = re.finditer(rf'<h3 id="fastmagn\.([\w.]+\.)?{name}"', text)
    part = text[where.start() : text.find("<h3 ", where.end())]
    assert 'class="doc-signature highlight"' in part
    assert re.search(r'<span class="gp">&gt;&gt;&gt; </span>', part)
    assert "&gt;&gt;&gt;" not in re.sub(r"<pre>.*?</pre>", "", part, flags=re.DOTALL)
    assert re.search(r"<th>Type</th>|<b>Type:</b>|doc-annotation", part) or "Parameters:" in part


@pytest.mark.process
@needs_browser
def test_search_finds_a_word_and_asks_nobody_else(address, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{address}/index.html")
    browser.find_element("css selector", "input.md-search__input").send_keys("keep_checkpoints")
    links = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    found = WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(links))
    assert any(link.split("?")[0].endswith("configuration.html") for link in found), found
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert any("search" in url for url in asked)
    assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked


@pytest.mark.process
@needs_browser
@pytest.mark.parametrize("page", slow_but(PAGES, *BUSY))
def test_nothing_is_wider_than_the_screen(page, address, browser):
    """Wide tables, code and equations scroll inside themselves."""
    browser.get(f"{address}/{page}.html")
    for width in (1400, 390):
        screen(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(OUTSIDE) == [], width
    assert browser.get_log("browser") == []


@pytest.mark.process
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_links_can_be_told(scheme, address, browser):
    """WCAG AA, by axe-core, on a page with equations, tables, code and links."""
    media(browser, scheme=scheme)
    browser.get(f"{address}/methods/magn_augmix.html")
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    browser.execute_script(axe_script())
    rule = "{runOnly: ['color-contrast', 'link-in-text-block'], resultTypes: ['violations']}"
    found = browser.execute_async_script(f"axe.run('main', {rule}).then(arguments[0])")
    assert [node["html"][:200] for one in found["violations"] for node in one["nodes"]] == []
