"""Settings that are wrong, or that earlier versions had."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, YamlConfigSettingsSource

from shared.settings.group import Group, config_path

#: What pydantic puts before the message of a validator.
_VALIDATOR = "Value error, "
#: Section and field of settings that earlier versions had; they are ignored.
_REMOVED = (("ledger", "window"), ("ledger", "republish_seconds"))


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


def removed_settings() -> list[str]:
    """Return the settings of earlier versions that are still set somewhere and have no effect."""
    variables = {**EnvSettingsSource(Group).env_vars, **DotEnvSettingsSource(Group).env_vars}
    file = YamlConfigSettingsSource(Group, yaml_file=config_path()).yaml_data
    return [
        f"{section}_{field}".upper()
        for section, field in _REMOVED
        if f"{section}_{field}" in variables or field in (file.get(section) or {})
    ]
