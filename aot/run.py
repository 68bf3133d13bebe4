"""The main job: `python -m aot.run dataset=… [group=option …] [key=value …]`; `-m` sweeps.

Everything is composed, checked and planned before Hydra takes over: Hydra alone exits with 1 on a wrong
configuration, gives no nearest names, and a job that fails ends its sweep.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from aot.compose import CONFIG_NAME, compose_jobs, config_folder, parse_command, plain
from aot.config import GROUPS, RunConfig, check_config
from aot.errors import AotError, ConfigError
from aot.launching.base import Launcher, Wait
from aot.launching.dry_run import print_plan
from aot.launching.plan import Plan, make_plan
from aot.report.index import write_report
from aot.runs.index import open_run
from aot.runs.summary import print_summary, summary_rows, write_summary
from aot.runs.task import ClipTask, Work
from aot.system.cli import EXIT_INTERRUPTED, run_command
from aot.system.files import remove_abandoned_parts

# Of the closing table where the output is no terminal but a file or a pipe, whose width nobody knows.
_FILE_WIDTH = 120

EXIT_DONE, EXIT_SOME_FAILED, EXIT_WRONG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parse_command(given)
    plans: dict[str, Plan] = {}
    try:
        if command.help and not any(override.startswith("dataset=") for override in command.overrides):
            command.overrides.append("dataset=demo")  # Hydra shows help only of a configuration that is complete
        if not (command.help or command.hydra_help or command.info or command.shell_completion):
            configs = _check_all(command)
            plans = {} if command.cfg else _plan_all(configs, is_sweep=command.multirun)
    except AotError as error:
        _say_wrong(error)
        return EXIT_WRONG
    runs: list[_Run] = []

    def job(composed: DictConfig) -> None:
        choices = HydraConfig.get().runtime.choices
        config = check_config(plain(composed), {group: str(choices[group]) for group in GROUPS})
        runs.append(_Run(plans[config.model_dump_json()], [sys.argv[0], *given]))

    try:
        with _stopped_like_ctrl_c():
            flags = [argument for argument in given if argument not in command.overrides]
            _hand_over_to_hydra(job, [*flags, *command.overrides])  # Hydra alone wants its flags at one end
            # Hydra runs the jobs of a sweep one after another: all are started before any is waited for.
            exit_codes = [run.finish() for run in runs]
    except KeyboardInterrupt:
        folders = sorted({str(plan.paths.root) for plan in plans.values()})
        print(f"\ninterrupted; what is finished is in {', '.join(folders)}. The same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return max(exit_codes, default=EXIT_DONE)


class _Run:
    """One job: started when it is made, finished when it is waited for; its errors never reach another one."""

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = command
        self._console = Console(soft_wrap=True)
        if not self._console.is_terminal:
            self._console = Console(width=_FILE_WIDTH, soft_wrap=True)
        self._wait: Wait | None = None
        self._exit_code = EXIT_DONE
        with self._stopping():
            self._start()

    def _start(self) -> None:
        plan = self._plan
        if plan.config.dry_run:
            print_plan(plan, self._console)
            return
        launcher: Launcher = plan.config.launcher.build()
        if launcher.divides_work or plan.config.shard:
            plan.sizes  # noqa: B018 (read now, so that run.json keeps them)
        plan.write(self._command)
        remove_abandoned_parts(plan.paths.root)
        work = plan.work()
        _announce(plan, work, self._console)
        self._wait = launcher.launch(plan, [each for each in work if each.work in (Work.ALL, Work.OVERLAY)])

    def finish(self) -> int:
        """Wait for what was started, unless nobody is to wait; say what came of it, and return the exit code."""
        if self._wait is None:
            return self._exit_code
        plan = self._plan
        with self._stopping():
            self._wait()
            rows = summary_rows(plan.paths, [clip.clip_id for clip in plan.own])
            all_rows = summary_rows(plan.paths, sorted(plan.listed))
            write_summary(plan.paths, all_rows)
            print_summary(plan, rows, self._console)
            self._exit_code = EXIT_DONE if all(row["state"] == "done" for row in rows) else EXIT_SOME_FAILED
            open_run(plan.paths.root)  # leaves an index behind, from which later ones are quick
            # Last: the table is told also where the report cannot be written.
            if plan.config.output.report:
                write_report(plan.paths, all_rows)
        return self._exit_code

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            print(f"{self._plan.paths.root}: {error}", file=sys.stderr)
            self._exit_code = EXIT_WRONG
        except AotError as error:
            print(f"{self._plan.paths.root}: stopped: {error}", file=sys.stderr)
            self._exit_code = EXIT_SOME_FAILED


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: workers are told, nothing half-written stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_all(command: argparse.Namespace) -> list[RunConfig]:
    """Compose and check every job; all that is wrong is said at once."""
    jobs, mistakes = compose_jobs(command)
    configs = []
    for job in jobs:
        try:
            configs.append(check_config(job.values, job.choices))
        except ConfigError as error:
            # Values may still be missing where a configuration is only looked at.
            mistakes += [] if command.cfg else str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return configs


def _plan_all(configs: Sequence[RunConfig], *, is_sweep: bool) -> dict[str, Plan]:
    """Plan every job; all that is wrong is said at once, before any of them starts."""
    sweep = hashlib.sha256("".join(sorted(config.hash for config in configs)).encode()).hexdigest()[:8]
    plans, mistakes = {}, []
    for config in configs:
        folder = config.run_folder
        mistakes += _missing_parts(config)
        try:
            root = folder.parent / f"sweep-{sweep}" / folder.name if is_sweep else folder
            plans[config.model_dump_json()] = make_plan(config, root)
        except AotError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return plans


def _missing_parts(config: RunConfig) -> list[str]:
    """What the parts that do the work lack, weights above all; to make them costs nothing."""
    missing = []
    for part in (config.segmenter, config.query_points, config.tracker):
        try:
            part.build()
        except ConfigError as error:
            missing.append(str(error))
    return missing


def _hand_over_to_hydra(job: Callable[[DictConfig], None], arguments: list[str]) -> None:
    own = sys.argv
    try:
        with tempfile.TemporaryDirectory() as folder:  # in which a sweep leaves Hydra's own record of it
            sys.argv = [own[0], *arguments, f"hydra.sweep.dir={folder}"]
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=CONFIG_NAME)(job)()
    finally:
        sys.argv = own


def _announce(plan: Plan, work: Sequence[ClipTask], console: Console) -> None:
    counts = {kind: sum(todo.work is kind for todo in work) for kind in Work}
    parts = [f"{counts[Work.ALL]} to run"]
    parts += [f"{counts[Work.OVERLAY]} to draw"] if counts[Work.OVERLAY] else []
    parts += [f"{counts[Work.NOTHING]} finished before"] if counts[Work.NOTHING] else []
    if counts[Work.FAILED_BEFORE]:
        parts.append(
            f"{counts[Work.FAILED_BEFORE]} failed before (take them again with 'retry=[all]', classes or clip ids)"
        )
    shard = plan.config.shard
    part = f" (shard {shard.number} of {shard.count}, {len(plan.clips)} in all)" if shard else ""
    console.print(f"{plan.paths.root}\n{len(work)} clips{part}: {', '.join(parts)}", highlight=False, markup=False)
    finished = sorted({todo.clip.clip_id for todo in work if todo.work is Work.NOTHING} & set(plan.config.retry))
    if finished:
        named = ", ".join(finished)
        console.print(f"{named}: finished; retry takes failed clips alone", highlight=False, markup=False)
    if plan.without_prompt:
        named = ", ".join(plan.without_prompt[:5]) + (", …" if len(plan.without_prompt) > 5 else "")
        console.print(
            f"{len(plan.without_prompt)} clips have no prompt and are left out: {named}", highlight=False, markup=False
        )


def _say_wrong(error: AotError) -> None:
    print(f"{error}\nNothing was started. `python -m aot.run --help` shows what can be said.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
