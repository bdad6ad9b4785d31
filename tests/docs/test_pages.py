from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from controller.cli.root import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    """A page as a test's id."""
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """Relative targets of a page's links and pictures, code left out."""
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text()))
    return [target for target in LINK.findall(text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page looks like after ``#``."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """A reader who follows a link finds the page and the heading."""
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked() -> None:
    """A page that nothing leads to is not read."""
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    assert [name(page) for page in PAGES if page.parent == ROOT / "docs" and page not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    """What a page says to type, make and cohort know."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    blocks = "".join(body for kind, body in FENCE.findall(page.read_text()) if kind in ("sh", "console"))
    assert set(re.findall(r"^(?:[$#] )?make ([a-z-]+)", blocks, re.MULTILINE)) <= targets
    assert set(re.findall(r"^(?:[$#] )?(?:\S*/)?cohort ([a-z]+)", blocks, re.MULTILINE)) <= set(COMMANDS)


def test_make_help_lists_every_target() -> None:
    """Whoever types `make` sees what there is, one line each."""
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split()[1] for line in shown.stdout.splitlines()] == phony[1].split()


def test_contributing_stays_short() -> None:
    """House rule: at most 100 lines."""
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 100


def test_readme_names_the_two_commands() -> None:
    """The issue's rule: `make demo` and `make test`, each with all the set-up."""
    commands = [body for kind, body in FENCE.findall((ROOT / "README.md").read_text()) if kind == "sh"]
    assert [line.split("#")[0].strip() for line in commands[0].splitlines()] == ["make demo", "make test"]
