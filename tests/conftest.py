"""Settings of all tests: skips that are failures in CI, the same examples in every run of CI, figures of long tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.command_line import VIDEOS, demo_command, only_run, run_in
from tests.made_once import made_once
from tests.synthetic import moving_square, write_video

# Set by CI, which may lack only a GPU and the data next to the repository.
REQUIRE_ALL = os.environ.get("AOT_REQUIRE_ALL") == "1"
MAY_LACK = ("../shared", "GPU")

# A new example must not fail an unrelated change: in CI, the examples are the same in every run.
settings.register_profile(
    "no_deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=REQUIRE_ALL
)
settings.load_profile("no_deadline")

# The process in which tests share an expensive fixture: networks, or the files and runs of the documentation.
GROUPS = {"tests/segmentation/": "networks", "tests/tracking/": "networks", "tests/test_docs.py": "documentation"}

FIGURE = "figure"
"""Name of a property of a test: what it measured, in words (`record_property(FIGURE, …)`), printed at the end."""


# A background job of a shell inherits an ignored SIGINT, and so do its children: the tests could not interrupt any of
# the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_weights_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the weights in the cache of the user who runs the tests, and in a folder that the environment names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AOT_CHECKPOINTS", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Restore the levels of aot's loggers: a worker sets one for its process, and another test expects a warning."""
    names = ("aot", *(name for name in logging.root.manager.loggerDict if name.startswith("aot.")))
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark long tests as slow, so that `-m 'not slow'` selects neither, and give tests their process."""
    for item in items:
        for start, group in GROUPS.items():
            if item.nodeid.startswith(start):
                item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured."""
    figures = [
        f"{report.nodeid}: {value}"
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, value in report.user_properties
        if name == FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(figure)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure if AOT_REQUIRE_ALL=1."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value) if call.excinfo else ""
        if not any(missing in reason for missing in MAY_LACK):
            report.outcome = "failed"
            report.longrepr = f"skipped although AOT_REQUIRE_ALL=1: {reason}"
    return report


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread: on small images the synchronisation of threads costs more than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete demo dataset, rendered once; tests must not change it."""
    from aot.datasets.demo.folder import generate_demo

    return made_once(tmp_path_factory, "demo", generate_demo)


@pytest.fixture(scope="session")
def finished_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two videos and their finished run by VIDEOS, made once; to change it, copy it."""

    def make(folder: Path) -> None:
        for name in ("a", "b"):
            write_video(folder / "clips" / f"{name}.mp4", moving_square(6))
        (folder / "clips" / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, box: [8, 20, 28, 40]}]}}\n")
        assert run_in(folder, *VIDEOS) == 0

    return made_once(tmp_path_factory, "finished_videos", make)


@pytest.fixture(scope="session")
def demo_outputs(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two demo clips with every eighth frame, made once; to change it, copy it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        assert run_in(folder, *demo_command(demo_root, folder)) == 0

    return only_run(made_once(tmp_path_factory, "demo_run", make), "demo")
