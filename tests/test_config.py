"""Every option composes and binds; all errors of a command are reported together, with the nearest names."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose

from aot.arguments import config_folder, parse_command
from aot.checkpoints import CHECKPOINTS
from aot.compose import Composed, compose_jobs
from aot.config import GROUPS, RunConfig, check_config, load_run_config
from aot.decoding.pyav import PyAVDecoder
from aot.detection.none import NoDetector
from aot.errors import ConfigError
from aot.flow.options import PointOptions
from aot.run import main

OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((config_folder() / group).glob("*.yaml"))]
REQUIRED = {
    option: [f"dataset.{key}=a"]
    for group, option in OPTIONS
    for key, value in yaml.safe_load((config_folder() / group / f"{option}.yaml").read_text()).items()
    if value == "???"
}


def compose_one(*arguments: str) -> tuple[Composed, list[str]]:
    jobs, errors = compose_jobs(parse_command(arguments))
    return jobs[0], errors


def checked(*arguments: str) -> RunConfig:
    job, errors = compose_one(*arguments)
    assert not errors
    return check_config(job.values, job.choices)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_binds(group: str, option: str) -> None:
    chosen = [f"{group}={option}", *REQUIRED.get(option, [])]
    config = checked(*(chosen if group == "dataset" else ["dataset=demo", *chosen]))
    assert getattr(config, group).name == option


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_constructor_argument_is_listed_with_its_default(group: str, option: str) -> None:
    listed = yaml.safe_load((config_folder() / group / f"{option}.yaml").read_text())
    module, _, name = listed.pop("_target_").rpartition(".")
    constructor = getattr(__import__(module, fromlist=[name]), name)
    parameters = inspect.signature(constructor).parameters
    # An option of query_points may have other defaults for the keys that all of them have.
    shared = set(PointOptions.model_fields) if group == "query_points" else set()
    assert set(listed) - shared == set(parameters)
    # The options of `dataset` share classes: their values differ from the defaults of the constructor.
    for key, parameter in parameters.items() if group != "dataset" else ():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert listed[key] == default, f"{group}.{key}"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_key_is_commented(group: str, option: str) -> None:
    lines = (config_folder() / group / f"{option}.yaml").read_text().splitlines()
    assert lines[0].startswith("#"), "the first line describes the option"
    bare = [line for line in lines if ":" in line and "#" not in line and not line.startswith("_target_")]
    assert not bare


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["dataset: none chosen", "demo, lerobot, lvos"]),
        (["dataset=demoo"], ["did you mean demo"]),
        (["dataset=demo", "frame_intervall=2"], ["did you mean frame_interval"]),
        (["dataset=demo", "root=2"], ["did you mean dataset.root or output.root"]),
        (["dataset=demo", "tracker=lucas"], ["tracker=lucas: no such option", "lucas_kanade"]),
        (["dataset=demo", "tracker=lucas_kanade", "tracker=tapnxt"], ["tracker=tapnxt: no such option", "tapnext?"]),
        (["dataset=demo", "tracker=x"], ["tracker=x: no such option; expected one of cotracker3, cotracker3_online"]),
        (
            ["dataset=demo", "dataset.zzz=1"],
            ["dataset.zzz: no such key; expected one of dataset.include, dataset.exclude"],
        ),
        (["dataset=demo", "dataset.rot=1"], ["dataset.rot: no such key; did you mean dataset.root?"]),
        (["dataset=demo", "datset.root=1"], ["datset.root: no such key; did you mean dataset.root"]),
        (["dataset=demo", "segmenter._target_=os.remove"], ["segmenter._target_: no such key"]),
        (["dataset=demo", "zzz=1"], ["zzz: no such key; expected one of frame_interval, sample_fps, retry"]),
        (["dataset=demo", "frame_interval=1,2"], ["add -m"]),
        (["dataset=demo", "dataset.root=a b=c"], ["double quotes"]),
        (["dataset=demoo", "frame_intervall=2", "tracker=x"], ["demoo", "frame_intervall", "tracker=x"]),
    ],
)
def test_unknown_names_are_reported_with_the_nearest_names(arguments: list[str], messages: list[str]) -> None:
    _, errors = compose_jobs(parse_command(arguments))
    for message in messages:
        assert message in "\n".join(errors)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["frame_interval=0"], ["frame_interval: expected a value greater than or equal to 1, got 0"]),
        (["frame_interval=two"], ["frame_interval", "got 'two'"]),
        (["dataset=demo", "dataset.scenes=leave"], ["dataset.scenes: expected a list, got 'leave'"]),
        (["sample_fps=0"], ["sample_fps: expected a value greater than 0, got 0"]),
        (["sample_fps=inf"], ["sample_fps: expected a finite number, got inf"]),
        (
            ["sample_fps=10", "frame_interval=2"],
            ["sample_fps: frame_interval=2 is given too, which chooses frames by number and not by time; expected"],
        ),
        (["output.overlay=maybe"], ["output.overlay", "got 'maybe'"]),
        (["dataset.limit=0"], ["dataset.limit"]),
        (["shard=0/4"], ["shard: expected NUMBER/COUNT", "got '0/4'"]),
        (["shard=5/4"], ["shard: expected NUMBER/COUNT"]),
        (["shard=3"], ["shard"]),
        (["ladder.max_frame_interval=0"], ["ladder.max_frame_interval", "greater than or equal to 1"]),
        (
            ["dataset.start_seconds=3", "dataset.end_seconds=2"],
            ["dataset.start_seconds=3 must be below dataset.end_seconds=2; change one of them"],
        ),
        (["+output.overlayy=true"], ["output.overlayy: no such key; did you mean overlay"]),
        (["+dataset.foo=1"], ["dataset.foo: no such key"]),
        (
            ["dataset=video", "dataset.path=a.mp4", "dataset.points=[462,388]"],
            ["dataset.points: expected a list of lists, got [462,388]; did you mean [[462,388]]?"],
        ),
        (["dataset.include=[[a]]"], ["dataset.include.0: expected text, got ['a']"]),
        (
            ["dataset.include=[20240501]"],
            ["dataset.include.0: expected text, got 20240501; put a name that looks like a number in double quotes"],
        ),
        (
            ["dataset.root=20240501"],
            ["dataset.root: expected a path, got 20240501; put a name that looks like a number"],
        ),
        (["dataset.root=null"], ["dataset.root: expected a path, got None"]),
        (["frame_interval=0", "output.evaluate=7"], ["frame_interval", "output.evaluate"]),
    ],
)
def test_invalid_values_are_reported(arguments: list[str], messages: list[str]) -> None:
    job, errors = compose_one("dataset=demo", *arguments)
    assert not errors
    with pytest.raises(ConfigError) as caught:
        check_config(job.values, job.choices)
    for message in messages:
        assert message in str(caught.value)


def test_a_command_without_errors_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    monkeypatch.setattr(
        "aot.compose.compose", lambda name, given, **options: composed.append(given) or compose(name, given, **options)
    )
    compose_one("dataset=demo", "frame_interval=2", "segmenter=grabcut")
    assert composed == [["dataset=demo", "frame_interval=2", "segmenter=grabcut"]]


def test_missing_required_values_are_reported() -> None:
    job, _ = compose_one("dataset=videos")
    with pytest.raises(ConfigError, match=r"dataset.root: required and not given; add dataset.root=VALUE"):
        check_config(job.values, job.choices)


def test_a_single_pattern_does_not_need_to_be_a_list() -> None:
    assert checked("dataset=demo", "dataset.include=spin").selection.include == ("spin",)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    config = checked("dataset=videos", 'dataset.root="~/clips"', 'output.root="~/results"')
    assert config.dataset.arguments["root"] == Path("/home/jo/clips")
    assert config.dataset.arguments["prompts"] == Path("/home/jo/clips/prompts.yaml")
    assert config.output.root == Path("/home/jo/results")


def test_hash_covers_only_settings_that_affect_results(tmp_path: Path) -> None:
    plain = checked("dataset=videos", "dataset.root=a")
    same = [
        "dataset.root=b", "output.root=elsewhere", "output.overlay=false", "dataset.limit=3", "dataset.include=[x]",
        "retry=[oom]", "dataset.masks_pattern=x", "shard=1/2", "ladder.max_frame_interval=2",
        "decoder=pyav", "decoder.max_buffer_gb=0.5",
    ]  # fmt: skip
    for override in same:
        assert checked("dataset=videos", "dataset.root=a", override).hash == plain.hash, override
    for override in [
        "frame_interval=2",
        "sample_fps=10",
        "segmenter=none",
        "query_points=grid",
        "dataset.end_seconds=3",
    ]:
        assert checked("dataset=videos", "dataset.root=a", override).hash != plain.hash, override


def test_hash_covers_the_content_of_weights_except_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def hash_with(*arguments: str) -> str:
        return checked("dataset=demo", "segmenter=sam2", "segmenter.size=tiny", *arguments).hash

    absent = hash_with()
    for name, content in {"a.pt": b"published", "b.pt": b"published", "c.pt": b"own", "d.pt": b"own"}.items():
        (tmp_path / name).write_bytes(content)
    tiny = CHECKPOINTS["sam2.1_hiera_tiny"]
    published = replace(tiny, sha256=hashlib.sha256(b"published").hexdigest())
    monkeypatch.setitem(CHECKPOINTS, tiny.name, published)
    assert {hash_with(f"segmenter.checkpoint={name}.pt") for name in "ab"} == {absent}
    own = {hash_with(f"segmenter.checkpoint={name}.pt") for name in "cd"}
    assert len(own) == 1
    assert absent not in own
    assert hash_with("segmenter.size=small") != absent
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / tiny.file).write_bytes(b"own")
    assert hash_with() in own


def test_run_folder_is_named_after_the_choices() -> None:
    chosen = ["segmenter=none", "tracker=lucas_kanade", "frame_interval=3", "output.root=here"]
    config = checked("dataset=demo", *chosen)
    assert config.run_folder == Path("here/demo") / f"none-lucas_kanade-k3-{config.hash[:8]}"


def test_the_configuration_in_run_json_can_be_loaded() -> None:
    config = checked("dataset=videos", "dataset.root=a", "dataset.limit=2", "frame_interval=4")
    again = load_run_config({"config": config.as_composed(), "choices": config.choices()})
    assert again.hash == config.hash
    assert again.dataset.arguments["root"] == Path("a").absolute()


def test_the_configuration_of_a_run_before_there_were_decoders_is_that_of_pyav() -> None:
    config = checked("dataset=videos", "dataset.root=a")
    composed, choices = config.as_composed(), config.choices()
    del composed["decoder"], choices["decoder"]
    again = load_run_config({"config": composed, "choices": choices})
    assert (again.decoder.name, again.hash) == ("pyav", config.hash)
    assert isinstance(again.decoder.build(), PyAVDecoder)


def test_the_configuration_of_a_run_before_there_were_detectors_has_none() -> None:
    config = checked("dataset=videos", "dataset.root=a")
    composed, choices = config.as_composed(), config.choices()
    del composed["detector"], choices["detector"]
    again = load_run_config({"config": composed, "choices": choices})
    assert (again.detector.name, again.has_detector, again.hash) == ("none", False, config.hash)
    assert isinstance(again.detector.build(), NoDetector)


def test_options_in_a_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("_target_: aot.datasets.demo.Demo\nroot: mine\n")
    config = checked("dataset=mine", "dataset.limit=1", "--config-dir", str(tmp_path))
    assert (config.dataset.name, config.selection.limit) == ("mine", 1)
    with pytest.raises(ConfigError, match="no such folder"):
        compose_one("dataset=mine", "--config-dir", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"root: [x\nfps: 3\n",
            "line 2, column 4: not valid YAML: expected a comma, or the ] that closes the [ of line 1",
        ),
        (b"root: a\nroot: b\n", "line 2, column 1: not valid YAML: the key 'root' is given twice, first in line 1"),
        (b"root:\n\tb: c\n", "line 2, column 1: not valid YAML: a tab is used for indentation; use spaces"),
        (b"root: \xff\n", "line 1, column 7: not text in UTF-8 (byte 0xff); save it as UTF-8; expected the keys of"),
        (b"- a\n", "mine.yaml: it contains no keys; expected the keys of an option, such as _target_: package"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--help"], ["--cfg", "job"], ["--info"]], ids=lambda flags: " ".join(flags))
def test_a_broken_option_of_the_user_is_described(
    tmp_path: Path, content: bytes, message: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_bytes(content)
    assert main(["dataset=mine", "--config-dir", str(tmp_path), *flags]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, *others = shown.err.splitlines()
    assert first.startswith(f"{tmp_path}/dataset/mine.yaml")
    assert message in first
    assert len(others) == 1, "the reference to --help"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${foo.bar}", "Interpolation key 'foo.bar' not found (in the key dataset.root)"),
        ("${foo", "an interpolation in braces, such as ${output.root}, is not complete"),
    ],
)
def test_a_broken_interpolation_is_described_on_one_line(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(f"_target_: aot.datasets.demo.Demo\nroot: {value}\n")
    with pytest.raises(ConfigError) as caught:
        compose_one("dataset=mine", "--config-dir", str(tmp_path))
    assert str(caught.value) == f"dataset=mine: {message}"


def test_an_empty_option_of_the_user_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        checked("dataset=mine", "--config-dir", str(tmp_path))
    assert str(caught.value) == "dataset: no _target_ in option 'mine'; expected the dotted name of a class"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("aot.datasets.nothing.Demo", "cannot be imported: No module named"),
        ("aot.datasets.demo.Nothing", "cannot be imported.*Nothing"),
        (None, "no _target_"),
    ],
)
def test_targets_that_cannot_be_imported_are_reported(target: Any, message: str) -> None:
    job, _ = compose_one("dataset=demo")
    values = job.values | {"dataset": job.values["dataset"] | {"_target_": target}}
    with pytest.raises(ConfigError, match=message):
        check_config(values, job.choices)


def test_sweep_expands_to_every_combination() -> None:
    jobs, errors = compose_jobs(
        parse_command(["-m", "dataset=demo", "frame_interval=1,2", "query_points=adaptive,grid"])
    )
    assert not errors
    found = [(job.values["frame_interval"], job.choices["query_points"]) for job in jobs]
    assert found == [(1, "adaptive"), (1, "grid"), (2, "adaptive"), (2, "grid")]
