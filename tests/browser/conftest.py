"""A real browser for real pages: Debian's Chromium without a screen, and the checks that hold for every page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.chromium import EXECUTABLE, VIEWPORT, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if EXECUTABLE is None:
        pytest.skip("no Chromium here: `make system` installs it (as root on Debian)")
    with chromium() as started:
        yield started


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Makes pages on which nothing may go wrong unseen: errors on the console fail the test at its end."""
    contexts, mistakes = [], []

    def make(*, expected: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(viewport=VIEWPORT, **options)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()

        def note(kind: str, text: str) -> None:
            if not any(part in text for part in expected):
                mistakes.append(f"{kind}: {text}")

        page.on("console", lambda message: message.type in ("error", "warning") and note(message.type, message.text))
        page.on("pageerror", lambda error: note("exception", str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert mistakes == []


@pytest.fixture
def assert_accessible() -> Callable[[Any], None]:
    """Axe finds no violation, whatever its impact."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page: Any) -> None:
        # Without preloading, for which axe would fetch style sheets again, past the page's own rules.
        found = Axe().run(page, options={"preload": False}).response["violations"]
        assert [(rule["id"], rule["impact"], [node["html"] for node in rule["nodes"]][:3]) for rule in found] == []

    return check
