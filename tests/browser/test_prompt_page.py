"""The prompt page in a real browser: click, check, save, and run with the saved prompts."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aot.manifest.read import load_manifest
from aot.run import main as run_main
from tests.prompt.prompt_server import prompt_server_in_thread
from tests.shared_data import DAVIS_CLIPS, SHARED_DATA, needs_shared_data
from tests.synthetic import moving_square, write_video

# In one process, which starts the browser and the pages of a module once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

WIDTH, HEIGHT, FRAMES = 320, 240, 12
FAST = ["segmenter=grabcut", "tracker=lucas_kanade", "query_points.num_points=20"]
DATASET = ["dataset=videos", "dataset.root=clips"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rgb = moving_square(FRAMES, WIDTH, HEIGHT)
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", rgb)


@pytest.fixture
def folder(video: Path, tmp_path: Path) -> Path:
    (tmp_path / "clips" / "day 1").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "day 1/<b>&c.mp4"):
        shutil.copy(video, tmp_path / "clips" / name)
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with prompt_server_in_thread(folder, *DATASET, *FAST) as url:
        yield url


class Page:
    """Actions of a user; positions are source pixels."""

    def __init__(self, page: Any, url: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
        self.page = page
        self.size = size
        page.goto(url)
        page.wait_for_selector("#saved.good")
        page.wait_for_selector(".clip-row[aria-selected=true]")

    def at(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#stage").bounding_box()
        width, height = self.size
        scale = min(box["width"] / width, box["height"] / height)
        left = box["x"] + (box["width"] - width * scale) / 2
        top = box["y"] + (box["height"] - height * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.at(x, y), **options)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def area(self, object_id: int = 1) -> int:
        """The mask's area in px as the page shows it, once it is computed."""
        facts = self.page.locator(f"#facts-{object_id}")
        facts.filter(has_text="score").wait_for()
        return int(re.match(r"([\d,]+) px", facts.inner_text())[1].replace(",", ""))  # type: ignore[index]

    def area_other_than(self, area: int, object_id: int = 1) -> int:
        other = re.compile(rf"^(?!{area:,} px).*score")
        self.page.locator(f"#facts-{object_id}").filter(has_text=other).wait_for()
        return self.area(object_id)

    def open(self, clip_id: str) -> None:
        self.page.locator(".clip-row", has=self.page.get_by_text(clip_id, exact=True)).click()
        self.wait_open(clip_id)

    def wait_open(self, clip_id: str) -> None:
        self.page.locator(f"#stage[aria-label*='of {clip_id}']").wait_for()
        self.wait_shown()

    def wait_shown(self) -> None:
        """Clicks count only on the frame that is shown."""
        self.page.locator("#stage:not(.waiting):not(.loading)").wait_for()

    def frame(self) -> int:
        return int(self.page.locator("#frame-number").input_value())

    def wait_saved(self) -> None:
        self.page.locator("#saved", has_text=re.compile("^saved$")).wait_for()

    def wait_named(self, name: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(".object input").first).to_have_value(name, timeout=120_000)

    def objects(self) -> list[str]:
        return self.page.locator(".object input").evaluate_all("all => all.map((input) => input.value)")

    def parts(self) -> list[str]:
        return [text.replace("\n", " ") for text in self.page.locator("#parts .what").all_inner_texts()]


def entry(folder: Path, clip_id: str) -> list[Any]:
    return list(load_manifest(folder / "clips" / "prompts.yaml").clips[clip_id].objects)


def test_clicked_prompts_are_saved_and_run(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("a")
    page.click(18, 30)
    one_point = page.area()
    assert 300 <= one_point <= 500, "the square has 400 px"
    assert page.page.locator("#stage").get_attribute("aria-label") == "Frame 0 of a, 1 prompt on it"
    page.click(26, 30, button="right")
    two_points = page.area_other_than(one_point)
    page.press("z")
    assert page.area_other_than(two_points) == one_point
    page.press("Shift+Z")
    assert page.area_other_than(one_point) == two_points
    page.press("Control+z")
    page.drag((6, 18), (29, 41))
    page.page.locator("#parts .what", has_text="box").wait_for()
    by_box = page.area()
    assert 300 <= by_box <= 500
    page.page.get_by_label("Name of object 1").fill("square")
    page.press("Enter", "2", "ArrowRight", "ArrowRight", "ArrowRight")
    assert page.frame() == 3
    page.wait_shown()
    page.click(200, 200)
    page.click(210, 120, button="right")
    page.page.keyboard.down("Alt")
    page.click(230, 140)
    page.page.keyboard.up("Alt")
    page.area(2)
    page.wait_saved()

    first, second = entry(folder, "a")
    assert (first.id, first.name, first.frame, first.labels) == (1, "square", 0, (1,))
    assert first.box == pytest.approx((6, 18, 29, 41), abs=1)
    assert first.points[0] == pytest.approx((18, 30), abs=1)
    assert (second.id, second.frame, second.labels) == (2, 3, (1, 0, 0))
    assert second.points[1] == pytest.approx((210, 120), abs=1)

    page.page.reload()
    page = Page(page.page, address)
    page.open("a")
    assert page.frame() == 0
    assert page.objects() == ["square", ""]
    assert page.area() == by_box
    page.press("2", "]")
    assert page.frame() == 3
    assert len(page.parts()) == 3
    page.press("Delete", "Delete", "Delete")
    page.wait_saved()
    assert [item.id for item in entry(folder, "a")] == [1]

    assert run(folder, "dataset.include=[a]") == 0
    page.page.locator(".clip-row", has_text="done").wait_for()
    (report,) = (folder / "outputs").rglob("report/index.html")
    page.page.goto(report.as_uri())
    page.page.get_by_role("button", name="done 1").click()
    page.page.locator("#table a").click()
    page.page.get_by_role("button", name="Play").click()
    page.page.locator("#where", has_text=f"frame {FRAMES - 1}").wait_for()


def run(folder: Path, *arguments: str) -> int:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return run_main([*DATASET, *FAST, "launcher=inline", *arguments])
    finally:
        os.chdir(before)


def test_page_can_be_used_by_keyboard_only(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.wait_open("a")
    page.press("c", *["ArrowLeft"] * 14, *["ArrowUp"] * 9, "Space")
    page.area()
    page.press("x", "Escape", "Delete", "Escape")
    page.press("c", "Escape", "c")
    page.press(*["ArrowLeft"] * 15, *["ArrowUp"] * 10, "Shift+ArrowLeft", "b")
    page.press(
        *["ArrowRight"] * 2, *["ArrowDown"] * 2, *["Shift+ArrowRight"] * 3, *["Shift+ArrowDown"] * 2, "b", "Escape"
    )
    page.page.locator("#parts .what", has_text="box").wait_for()
    page.press("o", "r")
    page.page.keyboard.type("other")
    page.press("Enter", "End")
    assert page.frame() == FRAMES - 1
    page.wait_shown()
    page.press("c", "Space", "Escape", "Home")
    assert page.frame() == 0
    page.wait_saved()
    first, second = entry(folder, "a")
    assert first.box == (9, 20, 32, 42)
    assert first.labels == (1,)
    assert (second.id, second.name, second.frame, second.points) == (2, "other", FRAMES - 1, ((160, 120),))
    page.press("Enter")
    page.wait_open("b")
    page.press("n")
    page.wait_open("day 1/<b>&c")
    page.press("ArrowUp")
    page.wait_open("b")
    page.press("?")
    assert page.page.locator("#help").is_visible()
    page.press("Escape")
    assert not page.page.locator("#help").is_visible()


def test_masks_and_saves_do_not_disturb_typing(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    """Masks are computed and changes are saved while the name is typed."""
    page = Page(new_page(), address)
    page.open("a")
    page.click(18, 30)
    page.press("r")
    page.page.keyboard.type("a name of some length", delay=40)
    page.area()
    page.press("Enter")
    page.wait_saved()
    assert entry(folder, "a")[0].name == "a name of some length"


def test_points_are_moved_and_boxes_resized(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    page.drag((10, 18), (40, 60))
    page.click(100, 100)
    page.drag((100, 100), (20, 30))
    page.drag((40, 60), (30, 42))
    page.wait_saved()
    (item,) = entry(folder, "b")
    assert item.points[0] == pytest.approx((20, 30), abs=1)
    assert item.box == pytest.approx((10, 18, 30, 42), abs=1)
    page.click(20, 30)
    assert page.page.locator(".part.selected").count() == 1
    page.press("Delete")
    page.wait_saved()
    assert entry(folder, "b")[0].points == ()


def test_clicks_are_finer_when_zoomed_in(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(), address)
    page.open("b")
    page.page.mouse.move(*page.at(18, 30))
    for _ in range(6):
        page.page.mouse.wheel(0, -300)
    page.page.locator("#zoom-fit", has_text="4000 %").wait_for()
    page.page.mouse.click(*page.at(18, 30))
    page.wait_saved()
    assert entry(folder, "b")[0].points[0] == pytest.approx((18, 30), abs=0.11)


def test_a_conflict_is_shown_and_resolved(
    address: str, folder: Path, new_page: Callable[..., Any], assert_accessible: Callable[[Any], None]
) -> None:
    page = Page(new_page(expected=("409",)), address)
    page.open("a")
    page.click(18, 30)
    page.wait_saved()
    manifest = folder / "clips" / "prompts.yaml"
    theirs = manifest.read_text().replace("- {id: 1, ", "- {id: 1, name: theirs, ") + "# by hand\n"
    manifest.write_text(theirs)
    page.click(60, 100)
    page.page.locator("#conflict").wait_for()
    assert "theirs" in page.page.locator("#conflict-theirs").inner_text()
    assert "60, 100" in page.page.locator("#conflict-yours").inner_text()
    assert_accessible(page.page)
    assert manifest.read_text() == theirs
    page.page.get_by_text("Use the version on disk").click()
    page.wait_named("theirs")
    assert len(page.parts()) == 1
    manifest.write_text(manifest.read_text().replace("theirs", "mine"))
    page.click(60, 100)
    page.page.locator("#conflict").wait_for()
    page.page.get_by_text("Keep your version").click()
    page.wait_saved()
    (item,) = entry(folder, "a")
    assert (item.name, len(item.points)) == ("theirs", 2)
    assert "# by hand" in manifest.read_text()


def test_a_change_on_disk_is_reloaded(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(expected=("422",)), address)
    page.open("a")
    manifest = folder / "clips" / "prompts.yaml"
    manifest.write_text("clips: {'*': {objects: [{id: 4, name: <i>all</i>, box: [8, 20, 28, 40]}]}}")
    page.wait_named("<i>all</i>")
    assert "From the entry" in page.page.locator("#pattern-note").inner_text()
    page.page.locator("#clips-count", has_text="3 of 3").wait_for()
    manifest.write_text("clips: {a: {objects: [{id: 0}]}}")
    page.page.locator("#notice-text", has_text="an integer ≥ 1").wait_for()


def test_mistakes_are_shown_and_not_saved(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    page = Page(new_page(expected=("422",)), address)
    page.open("a")
    page.click(60, 100, button="right")
    page.page.locator("#notice-text", has_text="has only background points").wait_for()
    assert page.page.locator("#saved").inner_text() == "not saved"
    page.click(18, 30)
    page.wait_saved()
    assert entry(folder, "a")[0].labels == (0, 1)


def test_markup_in_names_is_shown_as_text(address: str, folder: Path, new_page: Callable[..., Any]) -> None:
    """Markup in the manifest and in file names is shown as text."""
    evil = "<img src=x onerror=\\\"document.title='owned'\\\">"
    (folder / "clips" / "prompts.yaml").write_text(
        f'clips: {{"day 1/<b>&c": {{objects: [{{id: 1, name: "{evil}", box: [8, 20, 28, 40]}}]}}}}'
    )
    page = Page(new_page(), address)
    page.open("day 1/<b>&c")
    page.wait_named(evil.replace("\\", ""))
    assert page.page.locator(".clip-row b, .object img, #conflict img").count() == 0
    assert page.page.title() == "Prompts · aot"


def test_list_handles_thousands_of_clips(video: Path, tmp_path: Path, new_page: Callable[..., Any]) -> None:
    for number in range(3000):
        path = tmp_path / "clips" / f"day{number // 100:02d}" / f"ep_{number:04d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(video, path)
    with prompt_server_in_thread(tmp_path, *DATASET, *FAST) as url:
        raw = new_page()
        requested: list[str] = []
        raw.on("request", lambda request: "thumbnail" in request.url and requested.append(request.url))
        page = Page(raw, url)
        raw.locator("#clips-count", has_text="0 of 3000").wait_for()
        raw.locator(".clip-row img").first.wait_for()
        assert raw.locator(".clip-row").count() < 40
        raw.locator("#clip-list").evaluate("list => { list.scrollTop = list.scrollHeight; }")
        raw.locator(".clip-row", has_text="ep_2999").wait_for()
        page.open("day29/ep_2999")
        page.click(18, 30)
        assert page.area() > 0
        assert len(requested) < 60
        raw.locator("#clip-search").fill("EP_1234")
        assert raw.locator(".clip-row").count() == 1
        raw.locator("#clip-search").fill("nothing")
        assert raw.locator("#clips-empty").is_visible()
        raw.close()


def test_page_is_accessible_and_fits_the_window_in_light_and_dark(
    address: str, new_page: Callable[..., Any], assert_accessible: Callable[[Any], None]
) -> None:
    page = Page(new_page(), address)
    page.open("a")
    page.click(18, 30)
    page.area()
    page.press("2")
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        assert_accessible(page.page)
        width, height = page.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert (width, height) == (1280, 720)
        page.press("?")
        assert_accessible(page.page)
        page.press("Escape")


@needs_shared_data
def test_real_clip_is_prompted(new_page: Callable[..., Any], tmp_path: Path) -> None:
    """The prompts were checked against the ground-truth mask of the first frame."""
    video = DAVIS_CLIPS / "car-shadow" / "clip.mp4"
    known = next(
        e for e in json.loads((SHARED_DATA / "INDEX.json").read_text())["entries"] if e["name"] == "car-shadow"
    )
    (prompt,) = known["prompt"]["objects"]
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "car.mp4").symlink_to(video)
    with prompt_server_in_thread(tmp_path, *DATASET, *FAST) as url:
        page = Page(new_page(), url, size=(854, 480))
        page.wait_open("car")
        x0, y0, x1, y1 = prompt["box"]
        page.drag((x0, y0), (x1, y1))
        by_box = page.area()
        for point in prompt["points"]:
            page.click(*point)
        page.page.locator("#parts .what", has_text="object point").nth(1).wait_for()
        page.wait_saved()
        fraction = known["mask_area_frac"][0]
        assert 0.5 * fraction < by_box / (854 * 480) < 2 * fraction
        (item,) = entry(tmp_path, "car")
        assert item.box == pytest.approx(prompt["box"], abs=2)
        page.press("End")
        assert page.frame() == known["frames"] - 1
        page.page.close()


def test_clip_that_cannot_be_read_shows_the_reason(folder: Path, new_page: Callable[..., Any]) -> None:
    (folder / "clips" / "broken.mp4").write_text("not a video")
    with prompt_server_in_thread(folder, *DATASET, *FAST) as url:
        page = Page(new_page(expected=("422",)), url)
        page.page.locator(".clip-row", has_text="broken").click()
        page.page.locator("#stage-message", has_text="cannot be read as a video").wait_for()
        page.open("a")
        page.click(18, 30)
        assert page.area() > 0
        page.page.close()


class TestWords:
    """Objects that a detector has found, or is to find."""

    MANIFEST = """\
clips:
  a:
    objects:
      - {id: 1, frame: 0, text: red mug, box: [6, 18, 30, 42], score: 0.62, model: a/b}
      - {id: 2, text: hat, frames: [3, 0]}
      - {id: 3, text: all cups, count: all, min_score: 0.2, frame: 5}
"""

    @pytest.fixture
    def address(self, folder: Path) -> Iterator[str]:
        (folder / "clips" / "prompts.yaml").write_text(self.MANIFEST)
        with prompt_server_in_thread(folder, *DATASET, *FAST) as url:
            yield url

    @pytest.fixture
    def user(self, address: str, new_page: Callable[..., Any]) -> Page:
        return Page(new_page(), address)

    def saved(self, folder: Path) -> dict[int, dict[str, Any]]:
        objects = load_manifest(folder / "clips" / "prompts.yaml").clips["a"].objects
        return {item.id: item.model_dump(exclude_defaults=True) for item in objects}

    def test_words_and_scores_are_shown(self, user: Page) -> None:
        user.open("a")
        assert "“red mug”, found with score 0.62" in user.page.locator("#parts").inner_text()
        assert user.page.get_by_label("Name of object 1", exact=True).input_value() == "red mug"
        user.press("2")
        assert "“hat”, found by the detector of a run" in user.page.locator("#parts").inner_text()
        assert user.page.locator("#facts-2").inner_text() == "found by the detector of a run"

    def test_a_box_by_hand_replaces_what_was_found_or_is_to_be_found(self, user: Page, folder: Path) -> None:
        user.open("a")
        user.drag((100, 100), (140, 130))
        user.wait_saved()
        saved = self.saved(folder)
        assert {key: saved[1][key] for key in saved[1] if key != "box"} == {"id": 1, "text": "red mug"}
        assert saved[1]["box"][0] == pytest.approx(100, abs=1)
        assert saved[2] == {"id": 2, "text": "hat", "frame": 3, "frames": (3, 0)}
        user.press("2")
        user.drag((10, 100), (40, 130))
        user.wait_saved()
        saved = self.saved(folder)
        assert set(saved[2]) == {"id", "text", "box"}
        assert saved[3] == {"id": 3, "text": "all cups", "count": "all", "min_score": 0.2, "frame": 5}

    def test_words_become_the_name_where_nothing_else_is_left_of_them(self, user: Page, folder: Path) -> None:
        user.open("a")
        user.press("2")
        user.click(18, 30)
        user.wait_saved()
        assert self.saved(folder)[2] == {"id": 2, "name": "hat", "points": ((18.0, 30.0),), "labels": (1,)}
        user.press("z")
        user.wait_saved()
        assert self.saved(folder)[2] == {"id": 2, "text": "hat", "frame": 3, "frames": (3, 0)}
        user.press("1")
        user.page.get_by_label("Delete box", exact=False).click()
        user.wait_saved()
        assert set(self.saved(folder)) == {2, 3}
        assert user.page.get_by_label("Name of object 1", exact=True).input_value() == "red mug"


class TestFindByWords:
    """The search box, with a detector that finds the bright square."""

    @pytest.fixture
    def address(self, folder: Path) -> Iterator[str]:
        option = folder / "options" / "detector" / "square.yaml"
        option.parent.mkdir(parents=True)
        option.write_text("# Bright squares.\n_target_: tests.fakes.SquareDetector\n")
        with prompt_server_in_thread(folder, *DATASET, *FAST, "detector=square", "--config-dir", "options") as url:
            yield url

    @pytest.fixture
    def user(self, address: str, new_page: Callable[..., Any]) -> Page:
        return Page(new_page(), address)

    def test_what_is_found_is_added_with_its_mask_and_saved(self, user: Page, folder: Path) -> None:
        user.open("b")
        user.press("ArrowRight", "ArrowRight")
        user.wait_shown()
        user.page.get_by_label("Words that describe an object").fill("square")
        user.press("Enter")
        user.page.locator("#facts-1", has_text="score").wait_for()
        user.wait_saved()
        assert 300 < user.area() < 500
        (found,) = load_manifest(folder / "clips" / "prompts.yaml").clips["b"].objects
        assert (found.id, found.frame, found.text, found.score, found.model) == (1, 2, "square", 0.9, "squares")
        assert found.box == pytest.approx((12, 20, 32, 40), abs=1)
        assert "“square”, found with score 0.90" in user.page.locator("#parts").inner_text()
        user.page.get_by_label("all", exact=True).check()
        user.page.get_by_role("button", name="Find", exact=True).click()
        user.page.locator("#notice-text", has_text="“square” is marked on this frame already.").wait_for()
        user.press("ArrowRight")
        user.wait_shown()
        user.page.get_by_role("button", name="Find", exact=True).click()
        user.page.locator("#facts-2", has_text="score").wait_for()
        user.wait_saved()
        objects = load_manifest(folder / "clips" / "prompts.yaml").clips["b"].objects
        assert [(item.id, item.frame) for item in objects] == [(1, 2), (2, 3)]
        user.page.locator("#stage").focus()
        user.press("z", "z")
        user.wait_saved()
        assert "b" not in load_manifest(folder / "clips" / "prompts.yaml").clips

    def test_nothing_found_is_reported_with_the_best_score(self, user: Page, folder: Path) -> None:
        user.open("b")
        user.page.get_by_label("Words that describe an object").fill("hat")
        user.press("Enter")
        notice = '"hat" not found on frame 0: the best score is 0.100, expected at least 0.3'
        user.page.locator("#notice-text", has_text=notice).wait_for()
        assert user.page.get_by_label("Words that describe an object").input_value() == "hat"
        assert not (folder / "clips" / "prompts.yaml").exists()

    def test_page_is_accessible_with_the_search_box(self, user: Page, assert_accessible: Callable[[Any], None]) -> None:
        user.open("b")
        assert_accessible(user.page)


def test_without_a_detector_there_is_no_search_box(address: str, new_page: Callable[..., Any]) -> None:
    user = Page(new_page(), address)
    assert user.page.locator("#words").is_hidden()
