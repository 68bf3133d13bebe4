"""The report in a real browser: opened from disk, sorted, filtered, played; and with ten thousand clips."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from aot.paths import RunPaths
from aot.report.index import write_report
from aot.run import main as run_main
from tests.browser.static_server import static_server
from tests.synthetic import moving_square, write_video

# In one process, which starts the browser and the pages of a module once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

FAST = ["segmenter=grabcut", "tracker=lucas_kanade", "query_points.num_points=20"]
EVIL = "<b>&#1 %41?é\u202e"
# U+202E would reverse the text after it.
COMPUTED = "hash open prompts predict wait_for_frames segment query_points track write".split()
SHOWN = "<b>&#1 %41?é\\u202e"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run: two finished clips, one of them with special characters in its name, and a failed one."""
    folder = tmp_path_factory.mktemp("report")
    write_video(folder / "clips" / "a.mp4", moving_square(24, 320, 240))
    write_video(folder / "clips" / "day 1" / f"{EVIL}.mp4", moving_square(12, 320, 240))
    (folder / "clips" / "broken.mp4").write_text("not a video")
    objects = (
        "[{id: 1, name: '<img src=x>', frame: 3, box: [13, 19, 35, 41], points: [[24, 30], [60, 90]], labels: [1, 0], "
        "text: <b>hat</b>, score: 0.62, model: a/b}, {id: 2, frame: 0, points: [[200, 120]]}]"
    )
    (folder / "clips" / "prompts.yaml").write_text(f"clips: {{'*': {{objects: {objects}}}}}")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run_main(["dataset=videos", "dataset.root=clips", *FAST, "launcher=inline"]) == 1
    finally:
        os.chdir(before)
    (root,) = (folder / "outputs" / "videos").iterdir()
    return root / "report"


def clips(page: Any) -> list[str]:
    """The clips of the table, in order."""
    return page.locator("#table tbody tr:not(.spacer) td:first-child").all_inner_texts()


def frame(page: Any) -> int:
    return int(page.locator("#where").inner_text().split()[1])


def test_table_leads_to_the_video(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((report / "index.html").as_uri())
    assert clips(page) == ["a", "broken", f"day 1/{SHOWN}"]
    page.get_by_role("button", name="frames", exact=True).click()
    assert clips(page) == ["a", f"day 1/{SHOWN}", "broken"]
    page.get_by_role("button", name="frames", exact=True).click()
    assert clips(page) == [f"day 1/{SHOWN}", "a", "broken"], "rows without a value come last"
    page.get_by_role("button", name="failed 1").click()
    assert clips(page) == ["broken"]
    assert page.locator("#count").inner_text() == "1 of 3 clips"
    page.get_by_role("button", name="failed 1").click()
    page.get_by_label("Search in all columns").fill("day DONE")
    assert clips(page) == [f"day 1/{SHOWN}"]
    assert "retry=[decode]" in page.locator("#failures code").inner_text()

    page.locator("#table a").click()
    page.locator("#clip").wait_for()
    assert page.locator("h1").inner_text() == f"day 1/{SHOWN}"
    page.wait_for_selector("#video[src]")
    assert frame(page) == 0
    page.get_by_role("button", name="Next frame").click()
    page.get_by_role("button", name="Next frame").click()
    assert frame(page) == 2
    page.get_by_role("button", name="Previous frame").click()
    assert frame(page) == 1
    assert page.evaluate("document.getElementById('video').currentTime") == pytest.approx(0.1, abs=0.03)
    page.get_by_label("Speed").select_option("4")
    page.get_by_role("button", name="Play").click()
    page.locator("#where", has_text="frame 11").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert page.evaluate("document.getElementById('video').playbackRate") == 4
    page.go_back()
    assert clips(page) == [f"day 1/{SHOWN}"], "the state of the table is kept"


def test_video_is_at_the_time_of_the_selected_frame(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(f"{(report / 'clip.html').as_uri()}?clip=a")
    page.wait_for_selector("#video[src]")
    found = []
    for step in (0, 5, 23):
        page.locator("#place").fill(str(step))
        page.wait_for_timeout(0)
        page.evaluate("new Promise((done) => { const v = document.getElementById('video');"
                      " v.seeking ? v.addEventListener('seeked', done, { once: true }) : done(); })")  # fmt: skip
        assert frame(page) == step
        found.append(page.evaluate("document.getElementById('video').currentTime"))
    assert found == pytest.approx([0.02, 0.52, 2.32], abs=0.03)


def test_clip_page_shows_all_its_parts(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(f"{(report / 'clip.html').as_uri()}?clip=a")
    assert page.locator(".object-name").all_inner_texts() == ["1\n<img src=x>", "2\nobject 2"]
    assert page.locator(".chart strong").all_inner_texts() == [
        "Mask area", "Mask score", "Visible points", "Coverage", "Visibility, one strip per point", "x of the points",
        "y of the points",
    ]  # fmt: skip
    page.locator("#place").fill("3")
    area = page.locator(".chart .value").first.inner_text()
    assert 300 < int(area.split()[1].replace(",", "")) < 500
    page.get_by_label("Object", exact=True).select_option("2")
    assert page.locator(".chart .value").first.inner_text().startswith("2: ")
    assert painted_fraction(page, 0) > 0.001
    images = page.locator("#pictures img")
    assert [image.get_attribute("alt")[:8] for image in images.all()] == ["Frame 0 ", "Frame 3 "]  # type: ignore[index]
    page.locator(".prompt-image svg circle").first.wait_for()
    assert page.locator(".prompt-image svg rect").count() == 2, "the box and its outline"
    page.get_by_text("Configuration", exact=True).click()
    assert "lucas_kanade" in page.locator("#origin pre").inner_text()
    assert stages(page, "Time of the stages") == [*COMPUTED, "score", "overlay"], (
        "what is known when the page is written"
    )


def test_what_a_detector_has_found_is_shown_with_its_score(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(f"{(report / 'clip.html').as_uri()}?clip=a")
    caption = page.locator("#pictures figcaption", has_text="frame 3").inner_text()
    assert caption.startswith("frame 3 object 1: “<b>hat</b>” (score 0.62, a/b), box 13, 19, 35, 41, 1 object point,")


def test_flow_is_shown_with_its_scale(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(f"{(report / 'clip.html').as_uri()}?clip=a")
    image = page.locator("#flow img")
    image.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#flow img').naturalWidth > 0")
    assert re.fullmatch(r"Colours of the flow from frame \d+ to frame \d+", image.get_attribute("alt"))
    assert re.search(r"full colour is \d\S* px or more", page.locator("#flow figcaption").inner_text())


def test_first_page_shows_the_time_of_stages_and_workers(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((report / "index.html").as_uri())
    assert stages(page, "Time of the stages") == [*COMPUTED, "score", "overlay", "report"]
    (worker,) = stages(page, "Workers")
    assert str(os.getpid()) in worker
    computed = page.locator("#facts div", has_text="models computed").inner_text()
    assert re.search(r"\d+ % of the workers' time", computed)
    assert page.locator("#table th", has_text="overlay").count() == 0, "too many columns"


def stages(page: Any, title: str) -> list[str]:
    """The first column of a table in the provenance."""
    details = page.locator("#origin details", has=page.locator("summary", has_text=title))
    details.locator("summary").click()
    return [text.replace(" ", "_") for text in details.locator("tbody td:first-child").all_inner_texts()]
    page.locator("#after").click()
    assert page.locator("h1").inner_text() == "broken"
    assert "cannot be read as a video" in page.locator("#failure .message").inner_text()


def painted_fraction(page: Any, number: int) -> float:
    """Fraction of a chart's pixels that are painted."""
    return float(
        page.evaluate(
            "(number) => { const canvas = document.querySelectorAll('.chart canvas')[number];"
            " const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
            " return data.filter((value, place) => place % 4 === 3 && value > 0).length / (data.length / 4); }",
            number,
        )
    )


def test_page_can_be_used_by_keyboard_only(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((report / "index.html").as_uri())
    page.locator("#table th button").first.focus()
    page.keyboard.press("Enter")
    assert clips(page)[0] == f"day 1/{SHOWN}"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "a":
            break
    page.keyboard.press("Enter")
    page.locator("#clip").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert frame(page) == 11
    page.keyboard.press("End")
    assert frame(page) == 23
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()


def test_report_works_from_a_static_server(report: Path, new_page: Callable[..., Any]) -> None:
    with static_server(report) as url:
        page = new_page()
        page.goto(f"{url}/index.html")
        page.locator("#table a", has_text="day 1").click()
        page.locator("#clip").wait_for()
        page.wait_for_selector("#video[src]")
        for step in (1, 2, 3):
            page.get_by_role("button", name="Next frame").click()
            assert frame(page) == step
        assert page.evaluate("document.getElementById('video').currentTime") == pytest.approx(0.32, abs=0.03)
        page.get_by_role("button", name="Play").click()
        page.locator("#where", has_text="frame 11").wait_for()


def test_clip_ids_that_leave_the_report_are_not_loaded(report: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(expected=("ERR_FILE_NOT_FOUND",))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    for clip in ("../run", "../../x", "/etc/passwd", "//evil.example/x", "", "nothing"):
        page.goto(f"{(report / 'clip.html').as_uri()}?clip={quote(clip, safe='')}")
        page.locator("#failure").wait_for()
    assert all(url.startswith(report.as_uri()) for url in requested)


def test_page_is_accessible_in_light_and_dark(
    report: Path, new_page: Callable[..., Any], assert_accessible: Callable[[Any], None]
) -> None:
    page = new_page()
    for address in ("index.html", "clip.html?clip=a", "clip.html?clip=broken"):
        page.goto(f"{report.as_uri()}/{address}")
        page.locator("h1", has_text="…").wait_for(state="detached")
        page.locator("details").evaluate_all("all => all.forEach((details) => { details.open = true; })")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_frames_per_second_are_shown_where_they_were_requested(
    report: Path, tmp_path: Path, new_page: Callable[..., Any]
) -> None:
    video = write_video(tmp_path / "a.mp4", moving_square(12))
    options = ["dataset.box=[8,20,28,40]", "sample_fps=3.125", f"output.root={tmp_path}", "output.overlay=false"]
    assert run_main(["dataset=video", f"dataset.path={video}", *options, *FAST, "launcher=inline"]) == 0
    (root,) = (tmp_path / "video").iterdir()
    page = new_page()
    for address in ("index.html", "clip.html?clip=a"):
        page.goto(f"{(root / 'report').as_uri()}/{address}")
        facts = page.locator("#facts")
        facts.get_by_text("frames per second").wait_for()
        assert "3.125" in facts.inner_text()
        page.goto(f"{report.as_uri()}/{address}")
        facts.get_by_text("interval").wait_for()
        assert "frames per second" not in facts.inner_text()


def test_table_handles_ten_thousand_clips(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    paths = large_run(tmp_path, 10_000)
    write_report(paths)
    page = new_page()
    page.goto((paths.report / "index.html").as_uri())
    page.locator("#count", has_text="10,000 clips").wait_for()
    assert page.locator("#table tbody tr").count() < 80
    spent = page.evaluate(
        "() => { const begun = performance.now();"
        " document.querySelector('#table th[data-key=seconds] button').click();"
        " document.body.offsetHeight; return performance.now() - begun; }"
    )
    assert spent < 1000
    assert clips(page)[0] == "day99/ep_9999"
    spent = page.evaluate(
        "async () => { const frame = document.getElementById('table-frame'); const begun = performance.now();"
        " for (let n = 0; n < 40; n += 1) { frame.scrollTop = n * 8000;"
        " await new Promise(requestAnimationFrame); } return (performance.now() - begun) / 40; }"
    )
    assert spent < 100, "ms per frame while scrolling"
    page.locator("#table-frame").evaluate("frame => { frame.scrollTop = frame.scrollHeight; }")
    page.locator("#table td", has_text="day00/ep_0000").wait_for()
    page.get_by_label("Search in all columns").fill("ep_1234")
    assert clips(page) == ["day12/ep_1234"]


def large_run(root: Path, count: int) -> RunPaths:
    """The folder of a large run, with empty result files."""
    paths = RunPaths(root)
    ids = [f"day{number // 100:02d}/ep_{number:04d}" for number in range(count)]
    config = {"frame_interval": 1}
    run = {"schema": "aot-run/1", "command": ["aot"], "choices": {}, "config": config, "config_hash": "0"}
    run["clips"] = {clip_id: {} for clip_id in ids}
    paths.run_json.write_text(json.dumps(run))
    lines = []
    for number, clip_id in enumerate(ids):
        clip = paths.clip(clip_id)
        clip.result.parent.mkdir(parents=True, exist_ok=True)
        clip.result.touch()
        summary = {
            "num_objects": 1, "num_points": 100, "num_frames": 50 + number % 7, "num_source_frames": 60,
            "frame_interval": 1, "visible_share": 0.5, "in_mask_share": float("nan"),
            "seconds": {"track": 1.0 + number}, "peak_memory_bytes": 10**8, "object_errors": {},
        }  # fmt: skip
        at = "2026-01-01T00:00:00+00:00"
        done = {"event": "done", "at": at, "worker": "w", "clip_id": clip_id, "summary": summary, "scores": {}}
        lines.append(json.dumps(done))
    paths.ledgers.mkdir()
    paths.ledger("worker").write_text("\n".join(lines) + "\n")
    return paths


@pytest.fixture
def many(report: Path, tmp_path: Path) -> Path:
    """A report with eight more clips, whose values and failures are synthetic."""
    folder = tmp_path / "many"
    shutil.copytree(report, folder)
    script = folder / "data" / "run.js"
    text = script.read_text()
    start = text.index("(") + 1
    run = json.loads(text[start : text.rindex(")")])
    columns = run["columns"]
    for number in range(8):
        row = dict.fromkeys(columns) | {"clip_id": f"m{number}", "state": "done", "points": 100 + number}
        row |= {"visible": 0.1 * number, "in_mask": 0.9, "mask_stability": 0.4 if number == 5 else 0.9, "J": 0.5}
        run["rows"].append([row[name] for name in columns])
    failures = [
        {"clip_id": f"x{number}", "class": "decode", "message": f"/v/x{number}.mp4 has no frame", "log": None}
        for number in range(3)
    ]
    run["failures"] = [{"class": "decode", "retry": "aot run " + "long=1 " * 60 + "retry=[decode]", "clips": failures}]
    run["pages"] = ["a", "m2", "m3", *run["pages"]]
    script.write_text(f"aot.showRun({json.dumps(run)});")
    return folder


def test_columns_are_compared_with_numbers_and_scores_come_first(many: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((many / "index.html").as_uri())
    headings = page.locator("#table th").all_inner_texts()
    assert headings[:4] == ["clip", "state", "J", "objects"]
    search = page.get_by_label("Search in all columns")
    for text, expected in {
        "visible<0.25 m": ["m0", "m1", "m2"],
        "points>=106": ["m6", "m7"],
        "stability<0.5": ["m5"],
        "in_mask>0.95 m": [],
        "unknown<3": [],
    }.items():
        search.fill(text)
        assert clips(page) == expected, text


def test_neighbours_follow_the_order_of_the_table(many: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(expected=("ERR_FILE_NOT_FOUND",))
    page.goto((many / "index.html").as_uri())
    page.get_by_label("Search in all columns").fill("points>30 visible>0")
    page.get_by_role("button", name="points", exact=True).click()  # from the largest number down
    assert page.locator("#table a").all_inner_texts() == ["m3", "m2", "a", f"day 1/{SHOWN}"]
    page.get_by_role("link", name="a", exact=True).click()
    page.locator("#clip").wait_for()
    page.locator("#before").wait_for()
    assert page.locator("#after").get_attribute("title") == f"day 1/{SHOWN} (N)"
    page.keyboard.press("p")
    page.wait_for_url("**/clip.html?clip=m2", wait_until="commit")


def test_doubtful_clips_are_listed_with_their_values(many: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((many / "index.html").as_uri())
    entries = page.locator("#doubtful-clips li").all_inner_texts()
    assert any("m5" in entry and "masks change much from frame to frame (stability 0.4)" in entry for entry in entries)
    assert any("m1" in entry and "few points are visible (visible 0.1)" in entry for entry in entries)
    assert not any("m6" in entry for entry in entries)


def test_failures_with_one_message_are_one_group(many: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((many / "index.html").as_uri())
    group = page.locator("#failure-groups details details")
    assert group.count() == 1
    assert group.locator("summary").inner_text() == "3 clips: /v/x0.mp4 has no frame"
    group.locator("summary").click()
    assert group.locator("li").all_inner_texts() == ["x0", "x1", "x2"]
    command = page.locator("#failures code").first
    assert "retry=[decode]" in command.inner_text()
    assert command.evaluate("code => code.scrollWidth <= code.clientWidth"), "the end is not cut off"


def test_printed_page_has_all_rows_and_no_controls(many: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto((many / "index.html").as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(clips(page)) == 11
    assert page.locator("#search").is_hidden()


@pytest.mark.parametrize("name", ["index.html", "clip.html?clip=a"])
def test_pages_fit_a_telephone(many: Path, name: str, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{many.as_uri()}/{name}")
    page.locator("#facts div").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
