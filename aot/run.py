"""The main job: `python -m aot.run dataset=… [group=option …] [key=value …]`; `-m` sweeps.

Every job is composed, checked and planned before any of them starts: a wrong command starts nothing, and an error of
one run never ends another.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import os
import shlex
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from hydra import version as hydra_version
from hydra._internal.utils import _run_hydra
from rich.console import Console

from aot.arguments import command_parser, config_folder, parse_command
from aot.compose import CONFIG_NAME, Composed, compose_jobs, not_yet_reported, refuse_broken_options
from aot.config import RunConfig, check_config
from aot.errors import AotError, ConfigError, WriteError
from aot.launching.base import Launcher, Wait
from aot.launching.dry_run import print_plan
from aot.launching.plan import Plan
from aot.launching.preflight import plan_run
from aot.launching.reuse import reuse_results
from aot.reference import help_text
from aot.report.index import write_report
from aot.runs.finished import MIN_CLIPS, read_finished, record_finished
from aot.runs.index import update_index
from aot.runs.ledger import last_events, require_run
from aot.runs.ledger_files import end_dead_ledgers, end_ledgers
from aot.runs.parts import PartSweeper
from aot.runs.quarantine import quarantine_damaged
from aot.runs.state import merge_ended_ledgers
from aot.runs.summary import Records, print_summary, read_records, rows_of, write_summary
from aot.runs.task import ClipTask, Work
from aot.runs.timing import WorkerTimes
from aot.system.cli import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_WRONG, run_command
from aot.system.files import names_below
from aot.system.group_access import allow_group, restored_umask
from aot.system.output_folder import find_obstacle, find_run_obstacle, owner_of
from aot.system.processes import host
from aot.system.text import counted, first_names

# Width of the closing table where the output is a file or a pipe, which have none.
_FILE_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = parse_command(given)
        if _is_shown(command):
            return EXIT_DONE
        jobs, errors = compose_jobs(command)
        plans = _plan_all(_check_all(jobs, errors), is_sweep=command.multirun)
    except AotError as error:
        print(f"{error}\nNothing was started. `python -m aot.run --help` lists all options.", file=sys.stderr)
        return EXIT_WRONG
    runs = [Run(plan, [sys.argv[0], *given]) for plan in plans]
    try:
        with _sigterm_like_ctrl_c(), restored_umask():
            # All runs are started before any is waited for: SLURM can then work on all of them at once.
            for run in runs:
                run.start()
            exit_codes = [run.finish() for run in runs]
    except KeyboardInterrupt:
        folders = ", ".join(sorted({str(plan.paths.root) for plan in plans}))
        print(f"\ninterrupted; finished clips are in {folders}. Run the same command again to resume", file=sys.stderr)
        return EXIT_INTERRUPTED
    _point_to_sweep([plan for plan, run in zip(plans, runs, strict=True) if run.is_started])
    if max(exit_codes) == EXIT_WRONG:
        if any(run.is_started for run in runs):
            return EXIT_SOME_FAILED
        print("Nothing was started.", file=sys.stderr)
    return max(exit_codes)


class Run:
    """One run: started, then waited for; its errors never reach another run.

    Args:
        plan: the clips to process and their run folder.
        command: the command line, recorded in run.json.
    """

    def __init__(self, plan: Plan, command: Sequence[str]) -> None:
        self._plan = plan
        self._command = command
        self._console = Console(soft_wrap=True)
        if not self._console.is_terminal:
            self._console = Console(width=_FILE_WIDTH, soft_wrap=True)
        self._pending: list[ClipTask] = []
        self._ended_before: dict[str, dict[str, Any]] = {}
        self._wait: Wait | None = None
        self._is_strict = self._is_all_done = False
        self._can_write = True
        self._exit_code = EXIT_DONE

    @property
    def is_started(self) -> bool:
        """Whether the launcher has received the clips of this run."""
        return self._wait is not None

    def start(self) -> None:
        """Print what will be done, and hand the clips that are not finished to the launcher."""
        plan = self._plan
        with self._reporting_errors():
            if plan.config.dry_run:
                print_plan(plan, self._console)
                return
            launcher: Launcher = plan.config.launcher.build()
            self._is_strict = launcher.is_strict
            tasks = plan.tasks(retries=True)
            self._pending = [task for task in tasks if task.is_pending]
            self._is_all_done = all(task.work is Work.NOTHING for task in tasks)
            self._ended_before = last_events(plan.paths, ("ended",)) if self._pending else {}
            notes: list[str] = []
            if self._is_read_only():
                _announce(plan, tasks, notes, self._console)
                self._wait = _nothing_to_wait_for
                return
            with self._writing():
                if plan.config.output.group is not None:
                    allow_group(plan.config.output.group, plan.paths.root)
                plan.write(self._command, with_sizes=launcher.divides_work or plan.config.shard is not None)
                plan.request_retries(tasks)
                if reused := reuse_results(plan, tasks):
                    tasks = self._replan(tasks, reused)
                    origins = sorted({str(path.parents[len(Path(i).parts)]) for i, path in reused.items()})
                    notes.append(
                        f"not computed again: {counted(len(reused), 'result')} of runs with the same settings "
                        f"({first_names(origins)})"
                    )
                plan.remove_outdated_failures()
                PartSweeper(plan.paths).sweep()
                damaged = [task.clip.clip_id for task in tasks if task.is_damaged]
                notes += [quarantine_damaged(plan.paths, damaged)] if damaged else []
            _announce(plan, tasks, notes, self._console)
            self._wait = launcher.launch(plan, self._pending) if self._pending else _nothing_to_wait_for

    def _replan(self, tasks: Sequence[ClipTask], clip_ids: Collection[str]) -> list[ClipTask]:
        """The tasks, those of some clips planned again; also what is pending."""
        chosen = [(task.clip, task.fingerprint) for task in tasks if task.clip.clip_id in clip_ids]
        again = {task.clip.clip_id: task for task in self._plan.context.tasks_for(chosen)}
        planned = [again.get(task.clip.clip_id, task) for task in tasks]
        self._pending = [task for task in planned if task.is_pending]
        return planned

    def _is_read_only(self) -> bool:
        """Whether the run folder is that of a finished run that this user cannot write, such as another user's.

        Raises:
            ConfigError: it cannot be written, and some clips need work.
        """
        root = self._plan.paths.root
        obstacle = find_run_obstacle(root)
        if obstacle is None:
            return False
        problem = f"{obstacle.place} {obstacle.problem}"
        if self._pending:
            owner = owner_of(obstacle.place)
            asked = f", or ask {owner} to run the command with output.group=GROUP" if owner else ""
            raise ConfigError(f"{problem}; choose another folder with output.root=FOLDER{asked}")
        print(f"{root}: not updated: {problem}; no clip needs work", file=sys.stderr)
        self._can_write = False
        return True

    def finish(self) -> int:
        """Wait for the clips, unless the launcher does not wait; print the table and return the exit code."""
        if self._wait is None:
            return self._exit_code
        plan = self._plan
        with self._reporting_errors():
            self._wait()
            if self._pending:
                require_run(plan.paths)
            if self._can_write:
                with self._writing():
                    plan.remove_outdated_failures()
                    end_ledgers(plan.paths, [f"{host()}-{os.getpid()}"])
                    end_dead_ledgers(plan.paths)
                    merge_ended_ledgers(plan.paths)
            finished, is_part = self._read_finished(), self._is_part_of_many()
            if finished is None:
                records = read_records(plan.paths)
                clip_ids = [clip.clip_id for clip in plan.shard_clips] if is_part else plan.all_clip_ids
                all_rows = rows_of(plan.paths, records, clip_ids, plan.all_without_prompt)
                times = records.times
            else:
                all_rows, times = finished
            by_id = {row["clip_id"]: row for row in all_rows}
            rows = [by_id[clip.clip_id] for clip in plan.shard_clips]
            is_updated = self._can_write and finished is None and not is_part
            if is_updated:
                with self._writing():
                    write_summary(plan.paths, all_rows)
            listed = rows + rows_of(plan.paths, Records(), (), plan.without_prompt)
            print_summary(plan.paths, plan.config.output, listed, times, self._console)
            self._exit_code = EXIT_SOME_FAILED
            if not plan.unusable and all(row["state"] == "done" for row in rows):
                self._exit_code = EXIT_DONE
            self._report_outdated(rows)
            self._report_degraded(rows)
            if is_updated:
                update_index(plan.paths)
            has_report = plan.config.output.report
            # Last, so that the table is printed also where the report cannot be written.
            if is_updated and has_report:
                with self._writing():
                    write_report(plan.paths, all_rows, times)
            if is_updated and self._exit_code == EXIT_DONE:
                record_finished(plan.paths, [row["clip_id"] for row in all_rows], times, has_report=has_report)
        return self._exit_code

    def _is_part_of_many(self) -> bool:
        """Whether this is one of many commands for the shards of a large run, and not the last one.

        Only the last one makes the table, the index and the report.
        """
        plan = self._plan
        if plan.config.shard is None or len(plan.all_clip_ids) < MIN_CLIPS:
            return False
        ended = names_below(plan.paths.results, ".h5") | names_below(plan.paths.failures, ".json")
        num_left = sum(clip_id not in ended for clip_id in plan.all_clip_ids)
        if num_left:
            print(
                f"{plan.paths.root}: {counted(num_left, 'clip')} of other shards left; the command that ends last "
                f"writes summary.csv, index.npz and the report"
            )
        return num_left > 0

    def _read_finished(self) -> tuple[list[dict[str, Any]], WorkerTimes] | None:
        """The table as it was written when the run was finished; None if it may have changed since."""
        plan = self._plan
        is_all = self._is_all_done and len(plan.all_clip_ids) == len(plan.clips) and plan.config.shard is None
        if not is_all or names_below(plan.paths.failures, ".json"):
            return None
        clip_ids = plan.all_clip_ids + plan.all_without_prompt
        return read_finished(plan.paths, clip_ids, has_report=plan.config.output.report)

    def _report_outdated(self, rows: Sequence[dict[str, Any]]) -> None:
        """Report clips that the launcher has not processed, and whose results of an earlier run must not count as done.

        A clip that has ended since the run was planned was processed, even if its files are incomplete again: a second
        command with the same settings may be drawing it at this moment.

        Args:
            rows: the rows of the summary.
        """
        if not self._pending:
            return
        done = {row["clip_id"] for row in rows if row["state"] == "done"}
        ended = last_events(self._plan.paths, ("ended",))
        done -= {clip_id for clip_id, event in ended.items() if event != self._ended_before.get(clip_id)}
        pending = [(task.clip, task.fingerprint) for task in self._pending if task.clip.clip_id in done]
        num_outdated = sum(task.is_pending for task in self._plan.context.tasks_for(pending))
        if num_outdated:
            root, clips = self._plan.paths.root, counted(num_outdated, "clip")
            print(f"{root}: {clips} not processed, only earlier results exist; run the same command again to resume",
                  file=sys.stderr)  # fmt: skip
            self._exit_code = EXIT_SOME_FAILED

    def _report_degraded(self, rows: Sequence[dict[str, Any]]) -> None:
        """If the launcher is strict, report clips that were computed with a larger frame_interval than requested.

        Args:
            rows: the rows of the summary.
        """
        requested = self._plan.config.frame_interval
        degraded = [row["clip_id"] for row in rows if row["frame_interval"] not in ("", requested)]
        if self._is_strict and degraded:
            print(
                f"{self._plan.paths.root}: {counted(len(degraded), 'clip')} ran out of memory and were computed with a "
                f"larger frame_interval than {requested} ({first_names(degraded)}), which launcher.strict=true does "
                f"not accept; run with more memory and 'redo=[{','.join(degraded[:5])}]'",
                file=sys.stderr,
            )
            self._exit_code = EXIT_SOME_FAILED

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Allow a run folder that cannot be written if no clip needs work, so that finished runs stay readable.

        Raises:
            ConfigError: the folder cannot be written before any clip has started.
            WriteError: it cannot be written any more.
        """
        try:
            yield
        except WriteError as error:
            if self._wait is None and self._pending:
                obstacle = find_obstacle(self._plan.paths.root)
                reason = f"{obstacle.place} {obstacle.problem}" if obstacle else str(error)
                raise ConfigError(f"{reason}; choose another folder with output.root=FOLDER") from error
            if self._pending:
                raise
            print(f"{self._plan.paths.root}: not updated: {error}", file=sys.stderr)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            print(f"{self._plan.paths.root} was not started: {error}", file=sys.stderr)
            self._exit_code = EXIT_WRONG
        except AotError as error:
            print(f"{self._plan.paths.root}: stopped: {error}", file=sys.stderr)
            self._exit_code = EXIT_SOME_FAILED


def _nothing_to_wait_for() -> None:
    """The wait of a run in which no clip needs work."""


def _raise_if_any(errors: Sequence[str]) -> None:
    """Report errors together, each once."""
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(errors)))


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: workers are stopped, and no half-written file is left."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_all(jobs: Sequence[Composed], composing_errors: Sequence[str]) -> list[RunConfig]:
    """Check every job; errors in values and those found while composing are reported together.

    Args:
        jobs: the composed jobs.
        composing_errors: errors in names, found while composing.
    """
    errors, configs = list(composing_errors), []
    for job in jobs:
        try:
            configs.append(check_config(job.values, job.choices))
        except ConfigError as error:
            errors += not_yet_reported(str(error).splitlines(), composing_errors)
    _raise_if_any(errors)
    return configs


def _plan_all(configs: Sequence[RunConfig], *, is_sweep: bool) -> list[Plan]:
    """Plan every job; all errors, missing weights included, are reported together before any job starts."""
    sweep = hashlib.sha256("".join(sorted(config.hash for config in configs)).encode()).hexdigest()[:8]
    errors: list[str] = []
    plans = []
    for config in configs:
        folder = config.run_folder
        root = folder.parent / f"sweep-{sweep}" / folder.name if is_sweep else folder
        for part in (config.decoder, config.detector, config.segmenter, config.query_points, config.tracker):
            try:
                part.build()  # cheap: models load on first use
            except ConfigError as error:
                errors += str(error).splitlines()
        try:
            plans.append(plan_run(config, root))
        except AotError as error:
            errors += str(error).splitlines()
    _raise_if_any(errors)
    return plans


def _is_shown(command: argparse.Namespace) -> bool:
    """Print what --info, --help or --cfg asks for; whether one of them was given, so that nothing is to be run."""
    if command.info:
        refuse_broken_options(command)
        _show_by_hydra(command)
    elif command.help:
        print(_help(command))
    elif command.cfg:
        jobs, errors = compose_jobs(command)
        _raise_if_any(errors)
        _print_configurations(command, jobs)
    return bool(command.info or command.help or command.cfg)


def _help(command: argparse.Namespace) -> str:
    """The help on the options that the command chooses; of the demo where it chooses no dataset."""
    is_default = not any(override.startswith("dataset=") for override in command.overrides)
    chosen = copy.copy(command)
    chosen.overrides = [*command.overrides, *(["dataset=demo"] if is_default else [])]
    jobs, errors = compose_jobs(chosen)
    _raise_if_any(errors)
    folder = Path(command.config_dir) if command.config_dir else None
    return help_text(jobs[0].choices, is_default=is_default, folder=folder)


def _print_configurations(command: argparse.Namespace, jobs: Sequence[Composed]) -> None:
    """Print what `--cfg` asks for: for a single job Hydra prints it, of a sweep every job is printed."""
    if not command.multirun:
        _show_by_hydra(command)
        return
    if command.cfg != "job":
        raise ConfigError(f"--cfg {command.cfg}: with -m, only the jobs can be shown; use --cfg job")
    print("---\n".join(yaml.safe_dump(job.values, sort_keys=False, allow_unicode=True) for job in jobs), end="")


def _show_by_hydra(command: argparse.Namespace) -> None:
    """Let Hydra print the configuration or information about itself; no job is run."""
    hydra_version.setbase("1.3")
    text = io.StringIO()
    with redirect_stdout(text):  # Hydra prints through logging, which complains where nothing reads the output
        _run_hydra(
            args=command,
            args_parser=command_parser(),
            task_function=lambda config: None,
            config_path=str(config_folder()),
            config_name=CONFIG_NAME,
        )
    print(text.getvalue(), end="")


def _announce(plan: Plan, tasks: Sequence[ClipTask], notes: Sequence[str], console: Console) -> None:
    """Print the run folder, how many clips will be run, drawn or left as they are, and other lines about them."""
    counts = {kind: sum(task.work is kind for task in tasks) for kind in Work}
    parts = [f"{counts[Work.ALL]} to run"]
    parts += [f"{counts[Work.OVERLAY]} to draw"] if counts[Work.OVERLAY] else []
    parts += [f"{counts[Work.NOTHING]} finished before"] if counts[Work.NOTHING] else []
    if counts[Work.FAILED_BEFORE]:
        pronoun = "it" if counts[Work.FAILED_BEFORE] == 1 else "them"
        parts.append(
            f"{counts[Work.FAILED_BEFORE]} failed before (retry {pronoun} with 'retry=[all]', error classes or ids)"
        )
    shard = plan.config.shard
    part = f" (shard {shard.number} of {shard.count}, {len(plan.clips)} in total)" if shard else ""
    lines = [str(plan.paths.root), f"{counted(len(tasks), 'clip')}{part}: {', '.join(parts)}"]
    finished = sorted({task.clip.clip_id for task in tasks if task.work is Work.NOTHING} & set(plan.config.retry))
    if finished:
        lines.append(f"retry: {', '.join(finished)} finished before; only failed clips are retried, see redo=")
    replaced = [task.clip.clip_id for task in tasks if task.is_replacing]
    if replaced:
        lines.append(
            f"{counted(len(replaced), 'result')} of other prompts will be replaced ({first_names(replaced)})"
            f"{_manifests(plan)}; output.root=FOLDER keeps both"
        )
    redone = [task.clip.clip_id for task in tasks if task.is_redone]
    lines += [f"computed again on request: {first_names(redone)}; the results are replaced"] if redone else []
    lines += notes
    lines += plan.skipped
    console.print("\n".join(lines), highlight=False, markup=False)


def _manifests(plan: Plan) -> str:
    """The manifest of the earlier command and that of this one, if they differ."""
    before = plan.previous.get("config", {}).get("dataset", {}).get("prompts")
    now = plan.config.as_composed()["dataset"].get("prompts")
    return f": {before} was the manifest, now it is {now}" if before and now and before != now else ""


def _point_to_sweep(plans: Sequence[Plan]) -> None:
    """Name the command that compares the runs of a sweep over frame_interval or sample_fps."""
    for key in ("frame_interval", "sample_fps"):
        if len({getattr(plan.config, key) for plan in plans}) > 1:
            folder = shlex.quote(str(plans[0].paths.root.parent))
            print(f"quality against {key}: python -m aot.sweep {folder}")
            return


if __name__ == "__main__":
    sys.exit(run_command(main))
