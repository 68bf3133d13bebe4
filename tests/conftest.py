"""What holds for all tests.

Where everything is required, nothing skips unnoticed; small models take one thread; no property fails by the clock.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# Set by CI. A GPU and the data beside the repository are the two things that it may lack.
REQUIRE_ALL = os.environ.get("AOT_REQUIRE_ALL") == "1"
MAY_LACK = ("../shared", "GPU")

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


# Where the tests are started in the background of a script, SIGINT is ignored, and would be by all that they start:
# then nothing could be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where everything is required."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value) if call.excinfo else ""
        if not any(lacking in reason for lacking in MAY_LACK):
            report.outcome = "failed"
            report.longrepr = f"skipped although AOT_REQUIRE_ALL=1: {reason}"
    return report


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Pictures this small gain nothing from threads, and threads that wait for each other lose much."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
