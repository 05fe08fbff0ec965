"""Wrong settings, told in one line each instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from shared.settings.group import Group

#: What pydantic puts before the message of a validator.
_VALIDATOR = "Value error, "


@contextmanager
def exit_on_wrong_settings() -> Iterator[None]:
    """End the process with a line for each setting that is wrong."""
    try:
        yield
    except ValidationError as error:
        groups = {each.__name__: each for each in Group.__subclasses__()}
        if error.title not in groups:
            raise
        prefix = groups[error.title].model_config.get("env_prefix", "")
        lines = (_line(prefix, *(each["loc"] or ("",)), each["msg"]) for each in error.errors())
        sys.exit("\n".join(lines))


def _line(prefix: str, *parts: int | str) -> str:
    name, *inner, message = map(str, parts)
    place = ".".join((f"{prefix}{name}".upper(), *inner))
    return f"{place}: {message.removeprefix(_VALIDATOR)}"
