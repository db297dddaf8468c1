"""The documents are a site: it builds without a warning, asks no other host for anything, and its links lead somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[3]
# Loaded with a page; a link is only followed by who clicks it.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page loads, where its links lead, and the places that links may lead to."""

    def __init__(self, path: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.places |= {found.get("id", ""), found.get("name", "")}
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site")
    build = ["-m", "sphinx", "--quiet", "--nitpicky", "--fail-on-warning", "--keep-going", "-c", "docs", "."]
    ran = subprocess.run([sys.executable, *build, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return path


def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    loaded = {(path.name, one) for path in site.rglob("*.html") for one in Page(path).loaded}
    assert len(loaded) > 100
    assert [one for one in sorted(loaded) if re.match(r"(\w+:)?//", one[1])] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)[\"']?(\w+:)?//", path.read_text(encoding="utf-8")), path


def test_every_link_leads_to_a_page_or_a_place_in_it(site: Path) -> None:
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            name, place = map(unquote, urldefrag(link))
            if not re.match(r"\w+:", name):
                target = (path.parent / name).resolve() if name else path
                if not target.is_file() or (target in pages and place not in pages[target].places):
                    broken.append(f"{path.relative_to(site.resolve())}: {link}")
    assert broken == []


def test_the_site_can_be_searched(site: Path) -> None:
    words = (site / "searchindex.js").read_text(encoding="utf-8")
    assert all(word in words for word in ("loraplus_lr_ratio", "slurm", "quantiz"))
