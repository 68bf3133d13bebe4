"""Screenshots of the prompt page, the report and a sweep for the documentation, created from the demo clips.

python -m tests.browser.screenshots docs/images
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from aot.datasets.demo.folder import ensure_demo
from aot.run import main as run_main
from aot.sweep.report import write_sweep_report
from tests.browser.chromium import EXECUTABLE, VIEWPORT, chromium
from tests.command_line import EMBEDDED_MODELS
from tests.prompt.prompt_server import prompt_server

WIDTH, HEIGHT = 320, 240
DATASET = ["dataset=videos", "dataset.root=demo"]
COLOURS = 256
"""Palette size of a screenshot: sufficient for a page with a video frame, at a third of the file size."""


def main() -> int:
    if EXECUTABLE is None:
        print("no Chromium: `make system` installs it (as root on Debian)", file=sys.stderr)
        return 2
    target = Path(sys.argv[1]).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        ensure_demo(Path("demo"))
        prompts = yaml.safe_load(Path("demo/prompts.yaml").read_text())
        with chromium() as browser:
            capture_prompts(browser, prompts, target)
            capture_report(browser, prompts, target)
            capture_sweep(browser, target)
    return 0


def capture_prompts(browser: Any, prompts: Any, target: Path) -> None:
    """Capture the prompt page: two objects clicked in one clip, other clips prompted, one finished."""
    known = {name: entry for name, entry in prompts["clips"].items() if name in ("hide", "spin")}
    Path("demo/mine.yaml").write_text(yaml.safe_dump({"clips": known}))
    command = [*DATASET, "dataset.prompts=demo/mine.yaml", *EMBEDDED_MODELS]
    run_main([*command, "dataset.include=[hide]", "output.overlay=false"])
    y, x = (axis.mean() for axis in np.nonzero(np.asarray(Image.open("demo/masks/pair_1.png"))))
    for scheme in ("light", "dark"):
        with prompt_server(Path(), *command) as url:
            page = new_page(browser, scheme)
            page.goto(url)
            page.locator(".clip-row", has_text="pair").click()
            page.locator("#stage[aria-label*='of pair']").wait_for()
            page.wait_for_timeout(500)
            page.mouse.click(*at(page, x - 9, y - 6))
            page.mouse.click(*at(page, x + 10, y + 5))
            page.mouse.click(*at(page, x + 34, y - 16), button="right")
            name(page, 1, "pink leaf")
            page.keyboard.press("2")
            x0, y0, x1, y1 = prompts["clips"]["pair"]["objects"][1]["box"]
            drag(page, (x0, y0), (x1, y1))
            page.mouse.click(*at(page, (x0 + x1) / 2, (y0 + y1) / 2))
            name(page, 2, "yellow flower")
            for object_id in (1, 2):
                page.locator(f"#facts-{object_id}", has_text="score").wait_for()
            page.locator("#saved", has_text="saved").wait_for()
            page.locator("#busy").wait_for(state="hidden")
            page.mouse.move(2, 2)
            save(page, target / f"prompts-{scheme}.png")
            page.context.close()
            Path("demo/mine.yaml").write_text(yaml.safe_dump({"clips": known}))


def capture_report(browser: Any, prompts: Any, target: Path) -> None:
    """Capture the report of a run over the demo clips and a truncated copy of one."""
    shutil.copytree("demo", "recorded")
    video = Path("recorded/spin.mp4").read_bytes()
    Path("recorded/truncated.mp4").write_bytes(video[: len(video) // 3])
    clips = prompts["clips"] | {"truncated": {"objects": [{"id": 1, "box": [10, 10, 60, 60]}]}}
    Path("recorded/prompts.yaml").write_text(yaml.safe_dump({"clips": clips}))
    run_main(
        [
            "dataset=videos",
            "dataset.root=recorded",
            *EMBEDDED_MODELS,
            "query_points.num_points=80",
            "output.root=results",
        ]
    )
    (report,) = Path("results").absolute().rglob("report")
    for scheme in ("light", "dark"):
        page = new_page(browser, scheme)
        page.goto((report / "index.html").as_uri())
        page.locator("#count", has_text="clips").wait_for()
        save(page, target / f"report-{scheme}.png")
        page.goto(f"{(report / 'clip.html').as_uri()}?clip=pair")
        page.wait_for_selector("#video[src]")
        page.locator("#place").fill("22")
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(800)
        save(page, target / f"clip-{scheme}.png")
        page.context.close()


def capture_sweep(browser: Any, target: Path) -> None:
    """Capture the page of a sweep over four intervals of the demo clips."""
    options = [
        *EMBEDDED_MODELS,
        "dataset=demo",
        "query_points.num_points=80",
        "output.root=swept",
        "output.overlay=false",
    ]
    run_main(["-m", *options, "output.evaluate=false", "frame_interval=1,2,4,8"])
    (folder,) = Path("swept/demo").absolute().glob("sweep-*")
    report = write_sweep_report(folder, tolerance=0.1, title="demo, GrabCut and Lucas-Kanade")
    for scheme in ("light", "dark"):
        page = new_page(browser, scheme)
        page.set_viewport_size({**VIEWPORT, "height": 1130})
        page.goto(report.paths.page.as_uri())
        page.locator("#table tbody tr:not(.spacer) td").first.wait_for()
        page.wait_for_timeout(500)
        save(page, target / f"sweep-{scheme}.png")
        page.context.close()


def new_page(browser: Any, scheme: str) -> Any:
    return browser.new_context(viewport=VIEWPORT, color_scheme=scheme).new_page()


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Screen position (CSS px) of a source pixel on the prompt page."""
    box = page.locator("#stage").bounding_box()
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left, top = box["x"] + (box["width"] - WIDTH * scale) / 2, box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *end), steps=5)
    page.mouse.up()


def name(page: Any, object_id: int, text: str) -> None:
    page.get_by_label(f"Name of object {object_id}").fill(text)
    page.keyboard.press("Enter")


def save(page: Any, path: Path) -> None:
    page.screenshot(path=path)
    with Image.open(path) as image:
        # The octree method keeps colours of small areas, such as the points.
        small = image.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
