"""Wrong arguments of the commands: one message in plain words, exit code 2, nothing on the standard output."""

from __future__ import annotations

import pytest

from aot.__main__ import _module


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("verify RUN --quik", "--quik: no such option; did you mean --quick?"),
        ("verify RUN --zzz=3", "--zzz: no such option; expected one of --help, --quick, --repair"),
        ("verify", "RUN: required and not given"),
        ("verify one two", "two: not expected here; put a path or a pattern that contains spaces or * in quotes"),
        ("verify RUN --quick=1", "--quick '1': expected no value"),
        ("export RUN --format davs", "--format davs: no such value; did you mean davis?"),
        ("export RUN --format DAVIS", "--format DAVIS: no such value; did you mean davis?"),
        (
            "export RUN --format zip",
            "--format zip: no such value; expected one of davis, sa_v, coco, tapvid, npz, rerun, cotracker, flow, "
            "lerobot, atm, track2act, im2flow2act, general_flow, tracegen, wan_move, shape_of_motion",
        ),
        ("export RUN", "--format: required and not given"),
        ("export RUN --format npz --stride x", "--stride 'x': expected an integer"),
        ("export RUN --format npz --out", "--out: expected a value after it"),
        ("evaluate RUN --workers 0", "--workers '0': expected an integer of at least 1"),
        ("evaluate RUN --queries frist", "--queries frist: no such value; did you mean first?"),
        ("sweep SWEEP --tolerance x", "--tolerance 'x': expected a number"),
        ("sweep SWEEP --tolerance -1", "--tolerance -1.0: expected 0 or more"),
        ("report RUN --al1", "--al1: no such option; did you mean --all?"),
        ("status RUN --wach", "--wach: no such option; did you mean --watch?"),
        ("cancel", "RUN: required and not given"),
        ("prompts chek x", "command chek: no such command; did you mean check?"),
        ("prompts import x --format coc --out y", "--format coc: no such value; did you mean coco?"),
        ("prompts import x --format coco --ouut y", "--out: required and not given"),
        ("checkpoints lst", "command lst: no such command; did you mean list?"),
    ],
)
def test_wrong_arguments(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *arguments = line.split()
    with pytest.raises(SystemExit) as caught:
        _module(verb).main(arguments)
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first == message
    assert second.startswith(f"Nothing was started. `python -m aot.{verb}")
    assert second.endswith(" --help` lists the arguments.")
