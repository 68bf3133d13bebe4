"""Settings of all tests: skips that are failures in CI, no deadline for hypothesis, one thread for small models."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# Set by CI, which may lack only a GPU and the data next to the repository.
REQUIRE_ALL = os.environ.get("AOT_REQUIRE_ALL") == "1"
MAY_LACK = ("../shared", "GPU")

settings.register_profile("no_deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no_deadline")


# A background job of a shell inherits an ignored SIGINT, and so do its children: the tests could not interrupt any of
# the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
