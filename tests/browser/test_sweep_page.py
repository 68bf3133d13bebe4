"""The page of a sweep in a real browser, opened from disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aot.paths import SweepPaths
from aot.sweep.answers import write_answers
from aot.sweep.page import write_page
from aot.sweep.runs import Spacing
from aot.sweep.scores import SweptClip, summarize_intervals

# In one process, which starts the browser and the pages of a module once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

TOLERANCE = 0.1
INTERVALS = (1, 2, 4, 8)


def swept_clips(groups: tuple[str, ...], has_tracks: bool = True) -> list[SweptClip]:
    """Clips whose scores fall with the interval, each a little differently."""
    return [
        SweptClip(
            group=group,
            spacing=Spacing(interval, "frame_interval", str(interval)),
            frame_interval_used=interval,
            clip_id=f"clip <b>{number:02d}",
            quality={
                "masks": 0.9 - 0.02 * number - 0.03 * math.log2(interval) * (number % 4),
                "tracks": 1 - 0.05 * math.log2(interval) - 0.1 * order if has_tracks else math.nan,
            },
            by_truth={"masks": True, "tracks": False},
            seconds=(10 + number) / interval**0.8,
            peak_memory_bytes=int(3e8 + 1e9 / interval),
            num_source_frames=70,
        )
        for order, group in enumerate(groups)
        for number in range(12)
        for interval in INTERVALS
    ]


def write_sweep(root: Path, clips: list[SweptClip]) -> str:
    """Write the page of a sweep; returns its address."""
    paths = SweepPaths(root)
    intervals = summarize_intervals(clips)
    answers = write_answers(intervals, TOLERANCE)
    write_page(paths, clips, intervals, answers, title="12 <i>clips</i>", tolerance=TOLERANCE)
    return paths.page.as_uri()


def clip_ids(page: Any) -> list[str]:
    return page.locator("#table tbody tr:not(.spacer) td:first-child").all_inner_texts()


def drawn_colours(page: Any, number: int) -> set[str]:
    """The opaque colours of a chart, as "r,g,b"."""
    return set(
        page.evaluate(
            "(number) => { const canvas = document.querySelectorAll('.chart canvas')[number];"
            " const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
            " const found = new Set(); for (let i = 0; i < data.length; i += 4)"
            " if (data[i + 3] === 255) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`); return [...found]; }",
            number,
        )
    )


def test_page_shows_charts_answers_and_tables(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(write_sweep(tmp_path, swept_clips(("",))))
    assert page.locator("h1").inner_text() == "12 <i>clips</i>"
    assert [text[:24] for text in page.locator("#answers li").all_inner_texts()] == [
        "masks: frame_interval=4 ", "tracks: frame_interval=4", "masks and tracks: frame_",
    ]  # fmt: skip
    assert page.locator(".chart strong").all_inner_texts() == [
        "masks: J&F (against ground truth)", "tracks: δ_avg (agreement with the finest run)",
        "Quality against time", "Quality against memory",
    ]  # fmt: skip
    assert "1: 0.790, 2: 0.745" in page.locator(".chart canvas").first.get_attribute("aria-label")
    assert "0,114,178" in drawn_colours(page, 0), "the mean of the masks"
    assert "191,72,0" in drawn_colours(page, 1), "the mean of the tracks"
    assert {"0,114,178", "191,72,0"} <= drawn_colours(page, 2)
    assert page.locator("#intervals tbody tr").first.inner_text().split() == [
        "1",
        "0.790",
        "1.000",
        "186.0",
        "1300",
        "12",
    ]
    assert page.locator("#legend").inner_text().count("mean of the clips") == 2


def test_clips_are_sorted_and_marked(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(write_sweep(tmp_path, swept_clips(("",))))
    assert clip_ids(page)[:2] == ["clip <b>00", "clip <b>01"]
    page.get_by_role("button", name="J&F, 8", exact=True).click()
    assert clip_ids(page)[0] == "clip <b>00", "the highest score first"
    page.get_by_role("button", name="J&F, 8", exact=True).click()
    assert clip_ids(page)[0] == "clip <b>11"
    row = page.locator("#table tbody tr", has_text="clip <b>03")
    assert row.locator(".state.bad").all_inner_texts() == ["0.660", "0.570", "0.850"], "more than 0.1 below interval 1"
    assert row.locator("td").nth(1).inner_text() == "2"


def test_values_of_sample_fps_are_shown_from_the_finest_on(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    names = {1: "null", 2: "29.97", 4: "10", 8: "5"}
    clips = [
        replace(clip, spacing=Spacing(math.log2(clip.spacing.step), "sample_fps", names[int(clip.spacing.step)]))
        for clip in swept_clips(("",))
    ]
    page = new_page()
    page.goto(write_sweep(tmp_path, clips))
    assert "sample_fps\nnull, 29.97, 10, 5" in page.locator("#facts").inner_text()
    assert (
        page.locator(".chart canvas")
        .first.get_attribute("aria-label")
        .startswith("J&F by sample_fps. null: 0.790, 29.97: 0.745, 10: 0.700, 5: ")
    )
    assert page.locator("#intervals tbody tr td:first-child").all_inner_texts() == ["null", "29.97", "10", "5"]
    assert [text.split(" ")[1] for text in page.locator("#answers li").all_inner_texts()[:2]] == ["sample_fps=10"] * 2
    page.get_by_role("button", name="J&F, 29.97", exact=True).click()
    row = page.locator("#table tbody tr", has_text="clip <b>03")
    assert row.locator("td").nth(1).inner_text() == "29.97", "the smallest within the tolerance"


def test_each_group_of_options_has_its_own_colour(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(write_sweep(tmp_path, swept_clips(("tracker.window_px=9", "tracker.window_px=11"))))
    assert page.locator("#legend li").all_inner_texts()[:2] == ["tracker.window_px=11", "tracker.window_px=9"]
    assert {"0,114,178", "191,72,0"} <= drawn_colours(page, 1)
    assert page.locator("#table tbody tr:not(.spacer)").count() == 24


def test_a_measure_without_scores_has_no_chart(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(write_sweep(tmp_path, swept_clips(("",), has_tracks=False)))
    assert page.locator(".chart strong").all_inner_texts() == [
        "masks: J&F (against ground truth)", "Quality against time", "Quality against memory",
    ]  # fmt: skip
    assert "δ_avg" not in page.locator("#table thead").inner_text()


def test_page_is_accessible_in_light_and_dark(
    tmp_path: Path, new_page: Callable[..., Any], assert_accessible: Callable[[Any], None]
) -> None:
    page = new_page()
    for scheme, colour in {"light": "0,114,178", "dark": "86,180,233"}.items():
        page.emulate_media(color_scheme=scheme)
        page.goto(write_sweep(tmp_path, swept_clips(("",))))
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert colour in drawn_colours(page, 0)


def test_missing_data_is_reported(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(expected=("ERR_FILE_NOT_FOUND",))
    address = write_sweep(tmp_path, swept_clips(("",)))
    SweepPaths(tmp_path).data.unlink()
    page.goto(address)
    page.locator("h1", has_text="run python -m aot.sweep").wait_for()
