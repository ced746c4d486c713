"""YAML files, validated by the types of their dataclasses; a wrong one is refused in one line: the file, the key, what is accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")
# What a dataclass has as `__pydantic_config__` so that a misspelt key is an error and not left out.
STRICT_KEYS: dict[str, Any] = {"extra": "forbid"}


def parse_yaml(path: str | Path) -> Any:
    """What a YAML file holds, whatever that is. Raises `OSError`, and `ValueError` that names the file if it is no YAML."""
    content = Path(path).read_bytes()
    try:
        return yaml.safe_load(content.decode("utf-8"))
    except Exception as error:  # impossible dates, deep nesting: PyYAML raises whatever a value leads it to
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split()) or type(error).__name__}.") from error


def read_yaml(path: str | Path, kind: type[T]) -> T:
    """What a YAML file holds, as an instance of `kind`: a dataclass, or a list of some.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no YAML, or nothing of this kind. Names the file and the first key that is wrong.
    """
    from pydantic import TypeAdapter, ValidationError  # here, so that a dataclass with `STRICT_KEYS` costs nobody its import

    data = parse_yaml(path)
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        # A misspelt key is unknown and, if it has no default, missing too: the first says more.
        first = min(error.errors(), key=lambda problem: problem["type"] != "unexpected_keyword_argument")
        raise ValueError(f"{path}: {_explained(kind, first['loc'], first['type'], first['msg'], first['input'])}") from error


def _explained(kind: Any, place: Sequence[str | int], problem: str, message: str, value: Any) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if problem == "unexpected_keyword_argument":
        return f"`{name}` is unknown; accepted are {', '.join(_keys(kind, place))}."
    if problem == "missing":
        return f"`{name}` is missing."
    message = message.removeprefix("Value error, ").replace("Input should", "should").rstrip(".")
    if problem == "value_error":  # a `__post_init__` has told the value
        return f"{f'`{name}`: ' if name else ''}{message}."
    try:
        told = f"{value!r:.80}"
    except ValueError:  # Python prints no integer of more than 4300 digits
        told = "a number of thousands of digits"
    return f"{f'`{name}`' if name else 'it'} {message}, got {told}."


def _keys(kind: Any, place: Sequence[str | int]) -> list[str]:
    """The fields of the dataclass at a place: every part of a place but the last is a field's name or a list's index."""
    for part in place[:-1]:
        kind = get_args(kind)[0] if isinstance(part, int) else get_type_hints(kind)[part]
        if get_origin(kind) in (Union, UnionType):
            kind = next(member for member in get_args(kind) if member is not NoneType)
    return [field.name for field in fields(kind)]
