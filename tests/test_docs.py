"""The documentation is correct: every command that it shows runs, and every code example works."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import aot
from aot.export.run import FORMATS
from aot.images.masks import encode_rle
from aot.run import main as run_main
from aot.segmentation.base import Segmenter
from aot.types import Prompt, UInt8Array
from tests.command_line import EMBEDDED, EMBEDDED_MODELS, child_environment
from tests.datasets.lerobot_made import make as make_lerobot
from tests.fakes import ArraySource
from tests.segmentation.contract import FailingObjectContract, SegmenterContract
from tests.synthetic import write_video

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "conf/dataset/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
WIDTH, HEIGHT, NUM_FRAMES = 800, 600, 41
# The objects that the prompts of the documents mark: (x0, y0, x1, y1) px.
OBJECTS = ((410, 348, 522, 420), (567, 405, 646, 496), (720, 520, 780, 580), (10, 20, 60, 80), (100, 400, 160, 470))
# A command with one of these needs weights or a package that the tests do not have: it must report how to get them.
NEEDS_WEIGHTS = {
    "segmenter.size": "python -m aot.checkpoints download sam2.1_hiera_",
    "segmenter.checkpoint": "segmenter.checkpoint=",
    "tracker=cotracker3_online": "python -m aot.checkpoints download cotracker3_online",
    "tracker=tapnext": "python -m aot.checkpoints download tapnextpp",
    "detector=grounding_dino": "python -m aot.checkpoints download grounding_dino"
    if importlib.util.find_spec("transformers")
    else "pip install 'auto-objects-tracker[detect]'",
    "tracker=cotracker_upstream": "python -m aot.checkpoints download cotracker3_offline"
    if importlib.util.find_spec("cotracker")
    else "the package `cotracker` is not installed; install it with `pip install git+https://",
}
# Datasets of tens of gigabytes, which tests/datasets tests with small copies: the message must name the missing path.
MISSING_DATASETS = ("/data/sav_train/sav_000", "/data/my_robot", "/data/tapvid_davis.pkl")
# Added to commands that do not choose these themselves: few frames, or of a sweep over the frames one clip.
FEW_FRAMES, ONE_CLIP = "frame_interval=10", "dataset.limit=1"
NUM_KEPT = 5  # of the clips in `place`
NOT_RUN = {
    "pip": "downloads packages",
    "ssh": "needs another host",
    "sudo": "changes the system",
    "git": "clones",
    "apptainer": "Debian does not package it; tests/test_containers.py runs its scripts",
    "export": "sets variables of the next command",
}


@dataclass(frozen=True)
class Block:
    """A fenced code block of a document."""

    document: str
    language: str
    title: str
    text: str


def blocks() -> Iterator[Block]:
    for path in DOCUMENTS:
        found = re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', path.read_text(), re.MULTILINE | re.DOTALL)
        for match in found:
            yield Block(str(path.relative_to(ROOT)), match[1], match[2] or "", match[3])


def commands() -> list[str]:
    """Every distinct command in the documents, without comments."""
    lines = [
        line for block in blocks() if block.language == "sh" for line in block.text.replace("\\\n", "").splitlines()
    ]
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in lines} - {""})


COMMANDS = [shlex.split(command) for command in commands()]


def commands_with(*prefix: str) -> list[object]:
    """Commands with this prefix, as parameters of a test."""
    chosen = [words for words in COMMANDS if tuple(words[: len(prefix)]) == prefix]
    assert chosen, f"no document shows a command that starts with {prefix}"
    return [pytest.param(words[len(prefix) :], id=shlex.join(words)) for words in chosen]


def draw_frame(shift: int) -> UInt8Array:
    """A frame with bright textured objects, moved down by `shift` px, on a dark background."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for x0, y0, x1, y1 in OBJECTS:
        texture = rng.integers(150, 255, ((y1 - y0) // 6 + 1, (x1 - x0) // 6 + 1, 3), dtype=np.uint8)
        rgb[y0 + shift : y1 + shift, x0:x1] = np.kron(texture, np.ones((6, 6, 1), np.uint8))[: y1 - y0, : x1 - x0]
    return rgb


def first_block(language: str, containing: str) -> str:
    return next(block.text for block in blocks() if block.language == language and containing in block.text)


@pytest.fixture(scope="module")
def place(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory that the documents assume: videos, a manifest, own options and parts, a small /data."""
    place = tmp_path_factory.mktemp("reader")
    video = write_video(place / "teapot.mp4", np.stack([draw_frame(t // 10) for t in range(NUM_FRAMES)]))
    manifest = first_block("yaml", "teapot:")
    for folder in ("my_clips", "clips", "data/clips", "data/kitchen", "data/my clips (2024)"):
        root = place / folder
        for clip_id in ("teapot", "day1/ep_1", "day1/bad"):
            (root / f"{clip_id}.mp4").parent.mkdir(parents=True, exist_ok=True)
            (root / f"{clip_id}.mp4").hardlink_to(video)
        (root / "prompts.yaml").write_text(manifest)
        (root / "masks").mkdir()
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        x0, y0, x1, y1 = OBJECTS[4]
        mask[y0 + 3 : y1 + 3, x0:x1] = 255
        Image.fromarray(mask).save(root / "masks" / "teapot_2.png")
    for name in ("book.mp4", "data/videos/book.mp4", "-étude=1, take 2.mp4"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).hardlink_to(video)
    for block in blocks():
        name = block.title or (re.match(r"# (my_options/\S+)\n", block.text) or ["", ""])[1]
        if name:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(block.text.replace("/data/", f"{place}/data/"))
    (place / "launch").symlink_to(ROOT / "launch")
    shutil.copytree(demo_root, place / "data/demo")
    make_davis_trees(place)
    make_detections(place)
    return place


def make_davis_trees(place: Path) -> None:
    """/data/DAVIS with one sequence, and davis_clips as in docs/evaluation.md."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x0, y0, x1, y1 = OBJECTS[0]
    for root in (place / "data/DAVIS/{}/480p/bear", place / "davis_clips/bear/{}"):
        for t in range(5):
            mask[:] = 0
            mask[y0 + t : y1 + t, x0:x1] = 1
            for folder, array, suffix in (("JPEGImages", draw_frame(t), "jpg"), ("Annotations", mask, "png")):
                path = Path(str(root).format(folder)) / f"{t:05}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(array)
                if suffix == "png":
                    image = image.convert("P")
                image.save(path)
    for year in ("2016", "2017"):
        listed = place / f"data/DAVIS/ImageSets/{year}/val.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text("bear\n")
    video = write_video(place / "davis_clips/bear/clip.mp4", np.stack([draw_frame(t) for t in range(5)]))
    assert video.exists()
    objects = {"objects": [{"id": 1, "box": list(OBJECTS[0])}]}
    (place / "prompts.json").write_text(json.dumps({"clips": {"bear/clip": objects}}))


def make_detections(place: Path) -> None:
    """Output files of a detector and of a tracker."""
    images = [{"id": 1, "file_name": "teapot/00000.jpg", "width": WIDTH, "height": HEIGHT}]
    mask = encode_rle(np.ones((HEIGHT, WIDTH), np.bool_))
    found = {"image_id": 1, "category_id": 1, "bbox": [410, 348, 112, 72], "score": 0.9}
    segmentation = {"size": [HEIGHT, WIDTH], "counts": mask.counts}
    coco = {"images": images, "categories": [{"id": 1, "name": "teapot"}]}
    tracked = found | {"track_id": 1, "segmentation": segmentation}
    for name, content in (
        ("detections.json", coco | {"annotations": [found]}),
        ("results.json", [found]),
        ("instances_val.json", coco | {"annotations": []}),
        ("tracks.json", coco | {"annotations": [tracked]}),
    ):
        (place / name).write_text(json.dumps(content))
    for name in ("MOT17-02/det/det.txt", "MOT17-04/gt/gt.txt"):
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("1,1,10,20,50,60,1,1,1\n")


@pytest.fixture(scope="module")
def outputs(place: Path) -> Path:
    """Finished runs and a sweep, for the commands that read one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        command = ["dataset=videos", "dataset.root=my_clips", *EMBEDDED, "output.root=made"]
        assert run_main([*command, FEW_FRAMES]) == 0
        assert run_main(["-m", *command, "frame_interval=10,20", ONE_CLIP]) == 0
        davis = ["dataset=davis", f"dataset.root={place}/data/DAVIS", *EMBEDDED, "output.root=made"]
        assert run_main(davis) == 0
        robot = make_lerobot(place / "my_robot", "v3.0")
        assert run_main(["dataset=lerobot", f"dataset.root={robot}", *EMBEDDED, "output.root=made"]) == 0
    return place / "made"


@pytest.fixture
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delenv("AOT_CHECKPOINTS_URL", raising=False)
    return place


def localised(words: list[str], place: Path) -> list[str]:
    """A command with /data replaced by a folder of the test."""
    return [word.replace("/data/", f"{place}/data/") if not word.startswith("data/") else word for word in words]


@pytest.mark.parametrize("propagate", [True, False])
class TestSegmenterOfTheDocumentation(SegmenterContract, FailingObjectContract):
    """The segmenter of docs/extend.md is complete."""

    @pytest.fixture
    def segmenter(self, at: Path, propagate: bool) -> Segmenter:
        segmenter: Segmenter = importlib.import_module("my_parts.colour").ColourSegmenter(propagate=propagate)
        return segmenter

    @pytest.fixture
    def unusable(self) -> Prompt:
        return Prompt(object_id=5, frame=4, points=((70.0, 50.0),), labels=(0,))

    def test_mask_is_the_square_of_the_same_colour(self, segmenter: Segmenter) -> None:
        background = np.full((3, 64, 96, 3), 40, dtype=np.uint8)
        background[1, 20:40, 30:50] = 200
        prompt = Prompt(object_id=1, frame=1, box=(30, 20, 49, 39))
        blocks = list(segmenter.segment(ArraySource(background), [prompt], on_object_error=lambda *_: None))
        found = {int(frame): mask[0].sum() for block in blocks for frame, mask in zip(block.index, block.masks)}
        assert found == ({0: 0, 1: 400, 2: 0} if segmenter.propagate else {1: 400})


def test_every_command_has_a_test() -> None:
    kinds = {words[0] for words in COMMANDS}
    assert kinds - set(NOT_RUN) == {"python", "make"}
    modules = {words[2] for words in COMMANDS if words[:2] == ["python", "-m"]}
    assert modules == {
        f"aot.{name}" for name in "run checkpoints prompt prompts evaluate sweep export report status verify".split()
    }


@pytest.mark.slow
@pytest.mark.parametrize("words", commands_with("python", "-m", "aot.run"))
def test_run(words: list[str], at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given = localised(words, at)
    named = " ".join(given)
    needs_weights = [advice for key, advice in NEEDS_WEIGHTS.items() if key in named]
    given += [] if needs_weights else [option for option in EMBEDDED_MODELS if option.split("=")[0] + "=" not in named]
    given.append(ONE_CLIP if "frame_interval=" in named else FEW_FRAMES)
    if {"launcher=slurm", "launcher=devcluster", "launcher=apptainer"} & set(given):
        given += ["dry_run=true", "output.root=planned"]  # no cluster here; tests/faults has one
    elif "launcher" not in named:
        given.append("launcher=inline")
    code = run_main(given)
    output = capsys.readouterr()
    if needs_weights:
        assert code == 2
        assert all(advice in output.err for advice in needs_weights), output.err
    elif any(root in word for root in MISSING_DATASETS for word in words):
        assert code == 2
        assert re.search(r"/data/\S+", output.err), output.err
        assert "Key" not in output.err
        assert "unknown" not in output.err
    else:
        assert code == 0, output.out + output.err
        if "dry_run=true" in given:
            assert "#SBATCH" in output.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words"),
    [
        pytest.param(module, *parameter.values, id=f"{parameter.id}")  # type: ignore[attr-defined]
        for module in "evaluate sweep export report status verify".split()
        for parameter in commands_with("python", "-m", f"aot.{module}")
    ],
)
def test_commands_that_read_a_run(module: str, words: list[str], at: Path, outputs: Path) -> None:
    (run_folder,) = outputs.glob("davis/grabcut-*" if module == "evaluate" else "videos/grabcut-*")
    (sweep_folder,) = outputs.glob("videos/sweep-*")
    known = {"RUN": str(run_folder), "outputs/videos/sam2-cotracker3-k1-0123abcd": str(run_folder)}
    (robot_run,) = outputs.glob("lerobot/grabcut-*")
    known |= {"outputs/lerobot/sam2-tapnext-k1-0123abcd": str(robot_run)}
    known |= dict.fromkeys(("outputs/videos/sweep-0123abcd", "outputs/videos/sweep-*"), str(sweep_folder))
    given = [known.get(word, word) for word in localised(words, at)]
    if module in ("evaluate", "sweep") and "--workers" not in given:
        given += ["--workers", "1"]
    name = (
        f"aot.{module}.__main__"
        if importlib.util.find_spec(f"aot.{module}").submodule_search_locations
        else f"aot.{module}"
    )
    assert importlib.import_module(name).main(given) == 0


@pytest.mark.parametrize("words", commands_with("python", "-m", "aot.prompts"))
def test_prompts(words: list[str], at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aot.prompts import main

    (at / "prompts.yaml").unlink(missing_ok=True)
    needs_weights = words[0] == "detect"
    assert main(words) == (2 if needs_weights else 0)
    if needs_weights:
        assert NEEDS_WEIGHTS["detector=grounding_dino"] in capsys.readouterr().err


def test_every_export_format_is_listed() -> None:
    table = re.findall(r"^\| [^|]+ \| `(\w+)` \|", (ROOT / "docs/export.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(FORMATS)
    for readme, heading in {"README.md": "Export formats:", "README.zh-CN.md": "导出格式："}.items():
        text = (ROOT / readme).read_text()
        (paragraph,) = [part for part in text.split("\n\n") if part.startswith(heading)]
        assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(FORMATS), readme
        assert f"# {len(FORMATS)} formats: docs/export.md" in text


@pytest.mark.slow
@pytest.mark.parametrize("words", commands_with("python", "-m", "aot.checkpoints"))
def test_checkpoints(
    words: list[str], at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aot.checkpoints.__main__ import main

    monkeypatch.setenv("AOT_CHECKPOINTS_URL", "http://127.0.0.1:9/")  # no server listens on this port
    monkeypatch.setattr("aot.checkpoints.download._pause_seconds", lambda attempt: 0.0)
    assert main([*words, "--accept-license"]) == 1
    output = capsys.readouterr()
    assert "127.0.0.1:9" in output.err + output.out


@pytest.mark.slow
@pytest.mark.parametrize("words", commands_with("python", "-m", "aot.prompt"))
def test_prompt_page(words: list[str], at: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "aot.prompt", *words, "segmenter=grabcut", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(PYTHONUNBUFFERED="1"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert server.stdout
        address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(address) as page:
            assert b"<html" in page.read()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate()


def would_make(*targets: str) -> list[str]:
    """The commands that `make` would run, also if the tests themselves run under make."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *targets]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    return made.stdout.splitlines()


@pytest.mark.parametrize("words", commands_with("make"))
def test_make_has_the_target(words: list[str]) -> None:
    assert would_make(*words)
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {word for word in words if "=" not in word}
    assert targets <= set(" ".join(phony).split()), "a file of the same name would shadow the target"


@pytest.mark.parametrize("script", sorted(words[1] for words in COMMANDS if words[1:2] and words[1].endswith(".py")))
def test_benchmarks_have_the_options_shown(script: str) -> None:
    usage = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = {word for words in COMMANDS if words[1:2] == [script] for word in words if word.startswith("--")}
    assert named <= set(re.findall(r"--[a-z-]+", usage.stdout))


@pytest.mark.slow
def test_python_examples(at: Path, outputs: Path) -> None:
    """The examples that read results, executed in one session; the other examples need weights."""
    (run_folder,) = outputs.glob("videos/grabcut-*")
    torch = pytest.importorskip("torch")
    names: dict[str, object] = {"torch": torch, "RUN": run_folder}
    examples = [block for block in blocks() if block.language == "python" and not block.title]
    reading = [block for block in examples if "import aot\n" in block.text or "import h5py" in block.text]
    documents = {"README.md", "README.zh-CN.md", "docs/export.md", "docs/flow.md", "docs/hdf5.md"}
    assert {block.document for block in reading} == documents
    for block in reading:
        text = block.text.replace("outputs/videos/…", str(run_folder)).replace('"clips/', f'"{run_folder}/clips/')
        text = text.replace("book.h5", "teapot.h5").replace("num_workers=4", "num_workers=1")
        exec(compile(text, block.document, "exec"), names)
    assert isinstance(names["result"], aot.ClipResult)
    assert names["xy"].shape[0] == NUM_KEPT  # type: ignore[attr-defined]


@pytest.mark.slow
def test_demo_output_is_the_one_shown(demo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Except seconds and scores, whose last digits depend on the processor and the libraries."""
    shown = first_block("console", "make demo").splitlines()[1:]
    shutil.copytree(demo_root, tmp_path / "data/demo")
    printed = demo_output(tmp_path, capsys)
    assert [without_numbers(line) for line in printed] == [without_numbers(line) for line in shown]


def demo_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = would_make("demo")
        words = shlex.split(next(line for line in lines if "-m aot.run" in line))
        assert words[1:3] == ["-m", "aot.run"]
        assert run_main(words[3:]) == 0
    return [*capsys.readouterr().out.splitlines(), shlex.split(lines[-1])[1]]


def without_numbers(line: str) -> str:
    plain = re.sub(r" +", " ", re.sub(r"\d\.\d+|\d+(?=%)|\b[01]\b(?= |$)", "#", line)).strip()
    return re.sub(r"\d+(?= # # \w+$)", "#", plain)  # seconds, which may be a full number


def test_documents_have_no_placeholders() -> None:
    for path in DOCUMENTS:
        left = re.findall(r"^[A-Z][A-Z_0-9]+$|TODO|FIXME", path.read_text(), re.MULTILINE)
        assert not left, f"{path.name}: {left}"


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_anchors_of_links_exist() -> None:
    for path in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", path.read_text()):
            assert anchor in anchors(path.parent / target if target else path), f"{path.name}: {target}#{anchor}"


def test_links_and_navigation_of_the_documents() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)|srcset=\"([^\"]+)\"|src=\"([^\"]+)\"", path.read_text()):
            name = next(filter(None, target))
            if not name.startswith("http"):
                assert (path.parent / name).exists(), f"{path.name}: {name}"
    pages = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = set(re.findall(r"[\w-]+\.md", json.dumps(pages)))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}
