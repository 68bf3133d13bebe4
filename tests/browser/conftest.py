"""Fixtures of the browser tests: headless Chromium, and checks for every page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.chromium import EXECUTABLE, VIEWPORT, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if EXECUTABLE is None:
        pytest.skip("no Chromium: `make system` installs it (as root on Debian)")
    with chromium() as started:
        yield started


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open pages whose errors and warnings, unless they contain an `expected` text, fail the test at its end."""
    contexts, messages = [], []

    def make(*, expected: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(viewport=VIEWPORT, **options)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()

        def record(kind: str, text: str) -> None:
            if not any(part in text for part in expected):
                messages.append(f"{kind}: {text}")

        page.on("console", lambda message: message.type in ("error", "warning") and record(message.type, message.text))
        page.on("pageerror", lambda error: record("exception", str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert messages == []


@pytest.fixture
def assert_accessible() -> Callable[[Any], None]:
    """Check that axe finds no violation of any impact."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page: Any) -> None:
        # Without preloading: axe would fetch style sheets again, which the page's content security policy forbids.
        violations = Axe().run(page, options={"preload": False}).response["violations"]
        assert [(rule["id"], rule["impact"], [node["html"] for node in rule["nodes"]][:3]) for rule in violations] == []

    return check
