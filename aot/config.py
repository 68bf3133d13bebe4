"""The schema of the configuration: composed configurations are checked against it before anything starts.

Run-level values are checked against the models below, the arguments of every part against its constructor; all
errors are reported together.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from aot.checkpoints import weights_of
from aot.config_hash import hash_of, hashed_part, import_target
from aot.drawing.style import OverlayStyle
from aot.errors import ConfigError
from aot.flow.options import PointOptions
from aot.system.nearest import did_you_mean, suggestion

GROUPS = ("dataset", "decoder", "detector", "segmenter", "query_points", "tracker", "launcher")
MISSING = "???"

_NO_DETECTOR = {"_target_": "aot.detection.none.NoDetector"}

# Models of keys that are written below another group.
_SHOWN_GROUP = {"selection": "dataset", "points": "query_points"}

# pydantic's names of the error that a number raises where a list is expected.
_LIST_EXPECTED = ("is_instance_of", "list_type", "tuple_type", "sequence_str")

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Selection(_Strict):
    """Which clips of the dataset to run, and which time range of each; the keys are `dataset.include` and so on."""

    include: Names = ()
    exclude: Names = ()
    limit: Annotated[int, Ge(1)] | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Selection:
        if self.start_seconds is not None and self.end_seconds is not None and self.start_seconds >= self.end_seconds:
            raise ValueError(
                f"dataset.start_seconds={self.start_seconds:g} must be below dataset.end_seconds={self.end_seconds:g}; "
                f"change one of them"
            )
        return self


class Output(_Strict):
    """Where results are written, and which files are written besides the HDF5 files."""

    root: Annotated[Path, AfterValidator(Path.expanduser)]
    overlay: bool
    pictures: bool
    report: bool = True
    evaluate: bool
    return_check: bool = False
    group: str | None = None


class Ladder(_Strict):
    """How many frames may be dropped from a clip that runs out of memory."""

    max_frame_interval: Annotated[int, Ge(1)] = 8


class Shard(_Strict):
    """One shard of a run whose clips are divided among several commands; written as `3/16`."""

    number: Annotated[int, Ge(1)]
    count: Annotated[int, Ge(1)]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, dict | Shard):
            return value
        number, slash, count = str(value).partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError("expected NUMBER/COUNT with 1 ≤ NUMBER ≤ COUNT, such as 3/16")
        return {"number": int(number), "count": int(count)}


class PartConfig(_Strict):
    """One part: the name of its option, its class, and the arguments of its constructor."""

    name: str
    target: str
    arguments: dict[str, Any]

    def build(self) -> Any:
        """Construct the part. Constructors are cheap and raise where a file is missing; models load on first use."""
        return import_target(self.target)(**self.arguments)


class RunConfig(_Strict):
    """The complete configuration of one run."""

    dataset: PartConfig
    selection: Selection
    points: PointOptions = PointOptions()
    decoder: PartConfig
    detector: PartConfig = PartConfig(name="none", target=_NO_DETECTOR["_target_"], arguments={})
    segmenter: PartConfig
    query_points: PartConfig
    tracker: PartConfig
    launcher: PartConfig
    frame_interval: Annotated[int, Ge(1)]
    sample_fps: Annotated[float, Gt(0), AllowInfNan(False)] | None = None
    retry: Names = ()
    redo: Names = ()
    ladder: Ladder = Ladder()
    shard: Shard | None = None
    dry_run: bool = False
    output: Output
    overlay: OverlayStyle = OverlayStyle()

    @field_validator("sample_fps")
    @classmethod
    def _excludes_interval(cls, value: float | None, info: ValidationInfo) -> float | None:
        interval = info.data.get("frame_interval", 1)
        if value is not None and interval > 1:
            raise ValueError(
                f"frame_interval={interval} is given too, which chooses frames by number and not by time; expected "
                f"only one of them"
            )
        return value

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the settings that affect results: not of decoder, launcher, ladder, output, paths, clips.

        Of weights, the content is hashed. Published weights are determined by the other arguments and are not hashed,
        so that the hash is the same before and after their download.
        """
        parts = {"dataset": self.dataset, **self._models()}
        deciding: dict[str, Any] = {
            **{group: hashed_part(part.target, part.arguments) for group, part in parts.items()},
            "range": [self.selection.start_seconds, self.selection.end_seconds],
            "frame_interval": self.frame_interval,
        }
        # Options that version 0.1 did not have are hashed only where they differ from the default.
        points = self.points.model_dump(exclude_defaults=True)
        deciding |= {"points": points} if points else {}
        deciding |= {"sample_fps": self.sample_fps} if self.sample_fps is not None else {}
        own = {group: digests for group, part in self._models().items() if (digests := _own_weights(part))}
        return hash_of(deciding | ({"weights": own} if own else {}))

    @property
    def run_folder(self) -> Path:
        """The run folder; the same settings give the same folder."""
        frames = f"k{self.frame_interval}" if self.sample_fps is None else f"fps{self.sample_fps:g}"
        name = f"{self.segmenter.name}-{self.tracker.name}-{frames}-{self.hash[:8]}"
        return self.output.root / self.dataset.name / name

    def choices(self) -> dict[str, str]:
        """The option chosen in every group."""
        return {group: getattr(self, group).name for group in GROUPS}

    def as_composed(self) -> dict[str, Any]:
        """Plain containers that `check_config` accepts again, with absolute paths: valid in any working directory."""
        composed: dict[str, Any] = {
            "frame_interval": self.frame_interval,
            "sample_fps": self.sample_fps,
            "retry": list(self.retry),
            "redo": list(self.redo),
        }
        for group in GROUPS:
            part: PartConfig = getattr(self, group)
            composed[group] = {"_target_": part.target, **_absolute(part.arguments)}
        composed["dataset"] |= to_jsonable_python(self.selection)
        composed["query_points"] |= self.points.model_dump()
        composed["ladder"] = self.ladder.model_dump()
        composed["output"] = _absolute(self.output.model_dump())
        composed["overlay"] = self.overlay.model_dump()
        return composed

    @property
    def has_detector(self) -> bool:
        """Whether the run can find objects by words."""
        return self.detector.target != _NO_DETECTOR["_target_"]

    def _models(self) -> dict[str, PartConfig]:
        """The parts that affect results; no detector is one of version 0.1, too, which had none."""
        detector = {"detector": self.detector} if self.has_detector else {}
        return detector | {"segmenter": self.segmenter, "query_points": self.query_points, "tracker": self.tracker}


# Keys that all options of a group have, besides the arguments of their classes.
_KEYS_OF_ALL = {"dataset": Selection.model_fields, "query_points": PointOptions.model_fields}


def check_config(composed: Mapping[str, Any], choices: Mapping[str, str]) -> RunConfig:
    """Check a composed configuration and bind every part's arguments.

    Args:
        composed: plain containers, interpolations resolved; a value still missing is "???".
        choices: the option chosen in every group.
    Raises:
        ConfigError: lists all errors, each with the nearest valid name or the allowed range.
    """
    errors: list[str] = []
    values = dict(composed)
    selection = dict(values.get("dataset") or {})
    values["selection"] = {key: selection.pop(key) for key in Selection.model_fields if key in selection}
    values["dataset"] = selection
    part = dict(values.get("query_points") or {})
    values["points"] = {key: part.pop(key) for key in PointOptions.model_fields if key in part}
    values["query_points"] = part
    for group in GROUPS:
        try:
            values[group] = _bind(group, values.get(group) or {}, choices.get(group, group))
        except ConfigError as error:
            errors += str(error).splitlines()
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as exc:
        failed_parts = {re.split("[.: ]", line, maxsplit=1)[0] for line in errors}
        errors += [
            _describe(error, RunConfig)
            for error in exc.errors()
            if not (error["loc"][0] in GROUPS and error["loc"][0] in failed_parts)
        ]
    if errors:
        raise ConfigError("\n".join(errors))
    return config


def load_run_config(run_json: Mapping[str, Any]) -> RunConfig:
    """The configuration stored in the run.json of a run folder.

    Raises:
        ConfigError: it does not fit this version's schema.
    """
    config, choices = run_json["config"], run_json["choices"]
    if "decoder" not in config:  # written by version 0.1, which had no other decoder
        config = config | {"decoder": {"_target_": "aot.decoding.pyav.PyAVDecoder"}}
        choices = choices | {"decoder": "pyav"}
    if "detector" not in config:  # written before objects could be found by words
        config = config | {"detector": _NO_DETECTOR}
        choices = choices | {"detector": "none"}
    return check_config(config, choices)


def _bind(group: str, given: Mapping[str, Any], name: str) -> PartConfig:
    """Check a part's arguments against its constructor's types and ranges; nothing is constructed."""
    arguments = dict(given)
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{group}: no _target_ in option {name!r}; expected the dotted name of a class")
    parameters = parameters_of(f"{group}._target_", target)
    fields: dict[str, Any] = {
        name: (hint, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, (parameter, hint) in parameters.items()
    }
    model = create_model(target, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    present = {key: value for key, value in arguments.items() if value != MISSING}
    try:
        bound = model.model_validate(present)
    except ValidationError as exc:
        raise ConfigError("\n".join(_describe_all(exc.errors(), model, group))) from exc
    values = {key: getattr(bound, key) for key in fields}
    # `~` is not expanded by the shell inside quotes, nor in YAML files.
    paths = {key: value.expanduser() for key, value in values.items() if isinstance(value, Path)}
    return PartConfig(name=name, target=target, arguments=values | paths)


def parameters_of(key: str, target: str) -> dict[str, tuple[inspect.Parameter, Any]]:
    """The parameters of a class and their types, which are the keys of an option.

    Args:
        key: that gives the class, for the message.
        target: the dotted name of the class.
    Returns:
        Name → parameter, and its annotation; Any without one.
    Raises:
        ConfigError: the class cannot be imported, or is not a class with annotations that can be resolved.
    """
    try:
        constructor = import_target(target)
        hints = get_type_hints(constructor.__init__, include_extras=True)
        return {
            parameter.name: (parameter, hints.get(parameter.name, Any))
            for parameter in inspect.signature(constructor).parameters.values()
        }
    except Exception as exc:
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        raise ConfigError(
            f"{key}={target!r} cannot be imported: {reason}; expected module.Class of a module that Python finds: "
            f"check the name, or add its folder to PYTHONPATH"
        ) from exc


def _absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: str(value.absolute()) if isinstance(value, Path) else to_jsonable_python(value)
        for key, value in values.items()
    }


def _own_weights(part: PartConfig) -> list[str]:
    """SHA-256 of a part's weights that are not published."""
    try:
        return [weights.sha256 for weights in weights_of(part.build()) if weights.checkpoint is None]
    except ConfigError:  # missing weights: `aot.run` reports them before anything starts, other commands need none
        return []


def _describe_all(errors: Sequence[Any], model: type[BaseModel], group: str) -> list[str]:
    """One line per error; a flat list where a list of lists is expected is one error, not one per number."""
    messages = []
    for error in errors:
        name, *below = error["loc"]
        given = _given(errors, name) if below and error["type"] in _LIST_EXPECTED else None
        if given is None:
            messages.append(_describe(error, model, group))
        else:
            text = str(given).replace(" ", "")
            messages.append(f"{group}.{name}: expected a list of lists, got {text}; {did_you_mean([f'[{text}]'])}")
    return list(dict.fromkeys(messages))


def _given(errors: Sequence[Any], name: Any) -> list[Any] | None:
    """The value of an argument, rebuilt from its errors, if every item is a number instead of a list."""
    own = [error for error in errors if error["loc"][0] == name]
    is_flat = all(len(error["loc"]) == 2 and isinstance(error["input"], int | float) for error in own)
    return [error["input"] for error in own] if is_flat else None


def _describe(error: Any, model: type[BaseModel], group: str = "") -> str:
    """One pydantic error as `key: reason`, with the key as it is written on the command line."""
    where = [group, *error["loc"]] if group else list(error["loc"])
    where[0] = _SHOWN_GROUP.get(str(where[0]), where[0])
    key = ".".join(str(part) for part in where if part != "")
    if error["type"] == "missing":
        return f"{key}: required and not given; add {key}=VALUE"
    if error["type"] == "extra_forbidden":
        known = [*_fields_at(model, error["loc"][:-1]), *_KEYS_OF_ALL.get(group, ())]
        return f"{key}: no such key; {_nearest(str(error['loc'][-1]), known)}"
    if error["type"] == "value_error" and isinstance(error["input"], Mapping):
        return _reason(error)  # about several keys, which it names
    hint = ""
    if error["type"] in ("path_type", "string_type") and isinstance(error["input"], int | float):
        hint = "; put a name that looks like a number in double quotes inside single quotes: 'key=\"2024\"'"
    return f"{key}: {_reason(error)}, got {error['input']!r}{hint}"


def _nearest(name: str, known: Sequence[str]) -> str:
    """A hint at the keys that are most similar to an unknown one."""
    return suggestion(name, [each for each in known if each not in _SHOWN_GROUP])


def _reason(error: Any) -> str:
    """Why pydantic refuses a value, in the words of this package's other messages."""
    expected = {
        "is_instance_of": "a list",
        "sequence_str": "a list",
        "tuple_type": "a list",
        "path_type": "a path",
        "string_type": "text",
    }
    reason: str = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    for comparison in ("greater", "less"):
        reason = reason.replace(f"expected {comparison} than", f"expected a value {comparison} than")
    if error["type"] in expected:
        reason = f"expected {expected[error['type']]}"
    return reason


def _fields_at(model: type[BaseModel], where: tuple[str | int, ...]) -> list[str]:
    for step in where:
        field = model.model_fields.get(str(step))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
