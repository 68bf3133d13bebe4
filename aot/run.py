"""The main job: `python -m aot.run dataset=… [group=option …] [key=value …]`; `-m` sweeps.

Everything is composed, checked and planned before Hydra takes over: Hydra alone exits with 1 on a wrong
configuration, gives no nearest names, and a job that fails ends its sweep.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from aot.compose import CONFIG_NAME, compose_jobs, config_folder, parse_command, plain
from aot.config import GROUPS, RunConfig, check_config
from aot.errors import AotError, ConfigError
from aot.launching.base import Launcher
from aot.launching.plan import Plan, Work, make_plan
from aot.launching.summary import print_summary, summary_rows, write_summary
from aot.paths import remove_abandoned_parts
from aot.reporting.index import write_report

# Of the closing table where the output is no terminal but a file or a pipe, whose width nobody knows.
_FILE_WIDTH = 120

EXIT_DONE, EXIT_SOME_FAILED, EXIT_WRONG, EXIT_INTERRUPTED = 0, 1, 2, 130


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
    exit_codes = [EXIT_DONE]

    def job(composed: DictConfig) -> None:
        choices = HydraConfig.get().runtime.choices
        config = check_config(plain(composed), {group: str(choices[group]) for group in GROUPS})
        exit_codes.append(run_plan(plans[config.model_dump_json()]))

    try:
        flags = [argument for argument in given if argument not in command.overrides]
        _hand_over_to_hydra(job, [*flags, *command.overrides])  # Hydra alone wants its flags at one end
    except KeyboardInterrupt:
        folders = sorted({str(plan.paths.root) for plan in plans.values()})
        print(f"\ninterrupted; what is finished is in {', '.join(folders)}. The same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return max(exit_codes)


def run_plan(plan: Plan) -> int:
    """Do what a plan still needs, say what came of it, and return the exit code."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH, soft_wrap=True)
    try:
        plan.write()
        remove_abandoned_parts(plan.paths.root)
        work = plan.work()
        todo = [(clip, left) for clip, left in work if left in (Work.ALL, Work.OVERLAY)]
        _announce(plan, work, console)
        launcher: Launcher = plan.config.launcher.build()
        launcher.launch(plan, todo)
        rows = summary_rows(plan.paths, [clip.clip_id for clip in plan.clips])
        all_rows = summary_rows(plan.paths, sorted(plan.listed))
        write_summary(plan.paths, all_rows)
        if plan.config.output.report:
            write_report(plan.paths, all_rows)
    except AotError as error:
        print(f"{plan.paths.root}: stopped: {error}", file=sys.stderr)
        return EXIT_SOME_FAILED
    print_summary(plan, rows, console)
    return EXIT_DONE if all(row["state"] == "done" for row in rows) else EXIT_SOME_FAILED


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
    sys.argv = [own[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=CONFIG_NAME)(job)()
    finally:
        sys.argv = own


def _announce(plan: Plan, work: Sequence[tuple[object, Work]], console: Console) -> None:
    counts = {kind: sum(left is kind for _, left in work) for kind in Work}
    parts = [f"{counts[Work.ALL]} to run"]
    parts += [f"{counts[Work.OVERLAY]} to draw"] if counts[Work.OVERLAY] else []
    parts += [f"{counts[Work.NOTHING]} finished before"] if counts[Work.NOTHING] else []
    if counts[Work.FAILED_BEFORE]:
        parts.append(
            f"{counts[Work.FAILED_BEFORE]} failed before (take them again with 'retry=[all]', classes or clip ids)"
        )
    console.print(f"{plan.paths.root}\n{len(plan.clips)} clips: {', '.join(parts)}", highlight=False, markup=False)
    if plan.without_prompt:
        named = ", ".join(plan.without_prompt[:5]) + (", …" if len(plan.without_prompt) > 5 else "")
        console.print(
            f"{len(plan.without_prompt)} clips have no prompt and are left out: {named}", highlight=False, markup=False
        )


def _say_wrong(error: AotError) -> None:
    print(f"{error}\nNothing was started. `python -m aot.run --help` shows what can be said.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
