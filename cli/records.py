"""Records of options: a dataclass parameter of a command becomes one option for each of its fields.

The class variable `panel` of a record is the heading of its options in the help.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

from ..engine.contract.errors import RequestError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def record_options(command: _Command) -> _Command:
    """Let a command take records of options: its dataclass parameters are replaced by their fields."""
    hints = get_type_hints(command, include_extras=True)
    records: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name not in records:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        kind = records[parameter.name]
        types = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=_in_panel(types[field.name], kind.panel),
                )
            )

    @functools.wraps(command)
    def flat(**values: Any) -> Any:
        for name, kind in records.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        return command(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__
    return flat  # type: ignore[return-value]


def _in_panel(annotation: Any, panel: str) -> Any:
    """Return an annotated type whose option is below a heading of the help."""
    option = copy.copy(annotation.__metadata__[0])
    option.rich_help_panel = panel
    return Annotated[annotation.__origin__, option]


def refuse_without(option: str, given: dict[str, Any]) -> None:
    """Raise RequestError if any option in `given` has a value (0, too), because it has no effect without `option`."""
    names = [name for name, value in given.items() if value is not None and value is not False]
    if names:
        verb = "have" if len(names) > 1 else "has"
        raise RequestError(f"{' and '.join(names)} {verb} no effect without {option}: add it, or leave them out.")
