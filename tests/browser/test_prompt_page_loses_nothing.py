"""The prompt page in a real browser: no click goes to a frame that is not shown, and no work is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.test_prompt_page import DATASET, FAST, Page, address, entry, folder, video
from tests.prompt.prompt_server import prompt_server_in_thread

__all__ = ["address", "folder", "video"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

BROKEN = "clips: {a: {objects: [{id: 0}]}}"
LATE_FRAME = 7


def test_click_counts_only_on_the_frame_that_is_shown(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    held: list[Any] = []
    page.page.route(f"**/api/frame?*frame={LATE_FRAME}", lambda route: held.append(route))
    page.page.locator("#frame-number").fill(str(LATE_FRAME))
    page.press("Enter")
    page.page.locator("#stage.waiting").wait_for()
    page.click(18, 30)
    page.drag((10, 18), (40, 60))
    page.press("c", "Space", "Escape")
    assert page.parts() == []
    held[0].continue_()
    page.page.locator("#stage:not(.waiting)").wait_for()
    page.click(18, 30)
    page.wait_saved()
    assert [(item.frame, len(item.points), item.box) for item in entry(folder, "b")] == [(LATE_FRAME, 1, None)]


def test_conflict_cannot_be_escaped(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(expected=("409",)), address)
    page.open("a")
    page.click(18, 30)
    page.wait_saved()
    manifest = folder / "clips" / "prompts.yaml"
    manifest.write_text(manifest.read_text().replace("- {id: 1, ", "- {id: 1, name: theirs, "))
    page.click(60, 100)
    page.page.locator("#conflict[open]").wait_for()
    page.press(*["Escape"] * 5)
    page.page.locator("#conflict[open]").wait_for()
    page.page.get_by_text("Keep your version").click()
    page.wait_saved()
    page.click(90, 30)
    page.wait_saved()
    assert len(entry(folder, "a")[0].points) == 3


def test_failed_save_is_repeated_after_the_manifest_is_repaired(
    address: str, folder: Path, new_page: Callable[..., Any]
) -> None:
    page = Page(new_page(expected=("422",)), address)
    page.open("b")
    manifest = folder / "clips" / "prompts.yaml"
    manifest.write_text(BROKEN)
    page.click(18, 30)
    page.page.locator("#saved", has_text="not saved").wait_for()
    manifest.unlink()
    page.wait_saved()
    assert len(entry(folder, "b")[0].points) == 1


def test_unsaved_clicks_survive_a_reload(folder: Path, new_page: Callable[..., Any]) -> None:
    manifest = folder / "clips" / "prompts.yaml"
    token = ["--token-file", str(folder / "token")]
    with prompt_server_in_thread(folder, *DATASET, *FAST, *token) as address:
        page = Page(new_page(expected=("422", "ERR_CONNECTION")), address)
        page.open("b")
        manifest.write_text(BROKEN)
        page.click(18, 30)
        page.page.locator("#saved", has_text="not saved").wait_for()
        manifest.unlink()
        page.page.on("dialog", lambda dialog: dialog.accept())
        page.page.reload()
        page.wait_saved()
        page.wait_open("b")
        page.page.locator(".part").wait_for()
        page.wait_saved()
        assert len(entry(folder, "b")[0].points) == 1


def test_a_change_during_a_save_is_not_called_saved(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    held: list[Any] = []
    page.page.route("**/api/entry", lambda route: held.append(route))
    page.page.evaluate(
        """() => {
            window.seen = [];
            const label = document.getElementById("saved");
            new MutationObserver(() => window.seen.push(label.textContent)).observe(label, { childList: true });
        }"""
    )
    with page.page.expect_request("**/api/entry"):
        page.click(18, 30)
    page.click(60, 100)
    with page.page.expect_request("**/api/entry"):
        held[0].continue_()
    assert "saved" not in page.page.evaluate("window.seen")
    held[1].continue_()
    page.wait_saved()
    assert len(entry(folder, "b")[0].points) == 2


def test_keys_undo_redo_and_cancel(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    page.click(18, 30)
    page.press("End")
    page.page.locator("#stage:not(.waiting)").wait_for()
    last = page.frame()
    page.press("Control+z")
    page.page.wait_for_function("document.getElementById('frame-number').value === '0'")  # the change is shown
    assert (page.parts(), last) == ([], 11)
    page.press("Control+y")
    assert len(page.parts()) == 1
    page.wait_shown()
    page.page.mouse.move(*page.at(60, 60))
    page.page.mouse.down()
    page.page.mouse.move(*page.at(90, 90), steps=3)
    page.press("Escape")
    page.page.mouse.up()
    page.wait_saved()
    assert entry(folder, "b")[0].box is None


def test_edges_stretch_and_move_a_box_and_the_border_is_ignored(
    address: str, folder: Path, new_page: Callable[..., Any]
) -> None:
    page = Page(new_page(), address)
    page.open("b")
    page.drag((60, 60), (160, 140))
    page.drag((160, 100), (200, 120))  # the middle of the right edge stretches
    page.drag((90, 60), (100, 70))  # elsewhere, an edge moves
    page.wait_saved()
    assert entry(folder, "b")[0].box == pytest.approx((70, 70, 210, 150), abs=1.5)
    stage = page.page.locator("#stage").bounding_box()
    left, top = page.at(-0.5, -0.5)
    at = (left - 3, top + 20) if left - 3 > stage["x"] else (left + 20, top - 3)
    page.page.mouse.click(*at)
    assert page.page.locator(".part").count() == 1


def test_address_names_the_clip_and_the_frame(address: str, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    page.press("ArrowRight", "ArrowRight")
    page.page.wait_for_url("**#clip=b&frame=2")
    other = "day 1/<b>&c"
    page.page.goto(f"{address}#clip={quote(other, safe='')}&frame=5")
    page.wait_open(other)
    page.page.wait_for_function("document.getElementById('frame-number').value === '5'")
    page.page.reload()
    page.wait_open(other)
    assert page.frame() == 5


def test_enter_opens_the_first_hit_and_notices_do_not_move_the_frame(
    address: str, new_page: Callable[..., Any]
) -> None:
    page = Page(new_page(), address)
    page.open("a")
    page.page.locator("#clip-search").fill("c")
    page.press("Enter")
    page.wait_open("day 1/<b>&c")
    before = page.page.locator("#stage").bounding_box()
    page.page.locator("#stage").focus()
    page.press("Enter")
    page.page.locator("#notice-text", has_text="no prompt yet").wait_for()
    assert page.page.locator("#stage").bounding_box() == before


def test_two_fingers_zoom_and_do_not_click(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    before = int(page.page.locator("#zoom-fit").inner_text().rstrip(" %"))
    x, y = page.at(40, 40)
    devtools = page.page.context.new_cdp_session(page.page)

    def touch(kind: str, *distances: float) -> None:
        points = [{"x": x + distance, "y": y, "id": number} for number, distance in enumerate(distances)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -20)
    touch("touchStart", -20, 20)
    for distance in (40, 60, 80):
        touch("touchMove", -distance, distance)
    touch("touchEnd")
    page.page.wait_for_function(
        f"parseInt(document.getElementById('zoom-fit').textContent) > {2 * before}", timeout=10_000
    )
    assert page.page.locator(".part").count() == 0
    assert abs(page.at(40, 40)[0] - x) < 20, "what is between the fingers stays there"


def test_long_names_are_cut_in_the_middle_and_new_files_appear(
    address: str, folder: Path, new_page: Callable[..., Any]
) -> None:
    page = Page(new_page(), address)
    name = f"{'a_long_name_' * 8}take_{17:03}"
    path = folder / "clips" / f"{name}.mp4"
    path.write_bytes((folder / "clips" / "b.mp4").read_bytes())
    try:
        row = page.page.locator(f'[data-clip="{name}"]')
        row.wait_for(timeout=30_000)
        start, end = row.locator(".name bdi").all()
        assert start.inner_text() + end.inner_text() == name
        is_cut = "part => part.scrollWidth > part.clientWidth"
        assert start.evaluate(is_cut)
        assert end.inner_text().endswith("take_017")
        box, end_box = row.bounding_box(), end.bounding_box()
        assert end_box["x"] + end_box["width"] <= box["x"] + box["width"]
    finally:
        path.unlink()
