"""What every group of settings has: its sources, and that its secrets are not repeated."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from shared.redaction import keep_secret

MIB = 1024 * 1024
GIB = 1024 * MIB


class Group(BaseSettings):
    """A group of settings: a section of the YAML file and a prefix in the environment."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )
    section: ClassVar[str]
    #: Secrets that a service's own client takes from the environment.
    client_secrets: ClassVar[tuple[str, ...]] = ()

    def model_post_init(self, _: Any, /) -> None:
        """See to it that no log and no error of this process repeats a secret."""
        values = [getattr(self, name) for name in type(self).model_fields]
        values += [SecretStr(os.environ.get(name, "")) for name in self.client_secrets]
        for secret in (secret for value in values for secret in _secrets_in(value)):
            keep_secret(secret)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the YAML file behind the environment."""
        yaml = YamlConfigSettingsSource(settings_cls, yaml_file=config_path())
        section = yaml.yaml_data.get(cls.section) or {}
        yaml.init_kwargs = section
        return init_settings, env_settings, dotenv_settings, yaml


def config_path() -> Path:
    """Return where the YAML file is, if there is one."""
    return Path(os.environ.get("LIFECYCLE_CONFIG", "config/base.yaml"))


def _secrets_in(value: object) -> Iterator[str]:
    """Yield the passwords of an address or of ``user:password``, or else what is secret whole."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return
    if "://" in text:
        password = urlsplit(text).password or ""
        yield from (password, unquote(password))
    elif isinstance(value, SecretStr):
        yield text
        yield from (pair.partition(":")[2] for pair in text.split(","))
