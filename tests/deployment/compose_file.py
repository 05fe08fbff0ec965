"""docker-compose.yaml as Compose reads it: variables put in, services by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import yaml
from podman_compose import var_interpolate

from tests.deployment import REPOSITORY

COMPOSE_FILE = REPOSITORY / "docker-compose.yaml"
#: A value for each variable without which nothing starts; each is its own, and safe in a URL.
SECRETS = {
    "REDIS_PASSWORD": "redis-secret",
    "POSTGRES_PASSWORD": "postgres-secret",
    "LAKEFS_ACCESS_KEY_ID": "AKIA-lakefs-id",
    "LAKEFS_SECRET_ACCESS_KEY": "lakefs-secret",
    "LAKEFS_ENCRYPT_SECRET_KEY": "lakefs-encryption-secret",
    "MLFLOW_PASSWORD": "mlflow-admins-secret",
    "MLFLOW_SECRET_KEY": "mlflow-sessions-secret",
    "FLOWER_BASIC_AUTH": "operator:flower-secret",
    "API_ADMIN_KEY": "api-admins-secret-key",
}


@dataclass(frozen=True)
class Service:
    """A service of the file."""

    name: str
    definition: Mapping[str, Any]

    @property
    def image(self) -> str:
        """The image that it runs."""
        return str(self.definition["image"])

    @property
    def environment(self) -> dict[str, str]:
        """What its process is told."""
        return dict(self.definition.get("environment", {}))

    @property
    def target(self) -> tuple[str, str] | None:
        """Its Dockerfile and the target in it, if it is built."""
        build = self.definition.get("build")
        return (build.get("dockerfile", "Dockerfile"), build.get("target", "")) if build else None

    @property
    def command(self) -> list[str] | None:
        """Its command, if it is not the image's."""
        return self.definition.get("command")

    @property
    def health_check(self) -> list[str] | None:
        """How its health is asked for, if not as the image says; as words to execute."""
        test = self.definition.get("healthcheck", {}).get("test")
        return words_of_health_check(test) if test else None


def words_of_health_check(test: list[str]) -> list[str]:
    """Return a health check as words to execute."""
    kind, *words = test
    return ["sh", "-c", *words] if kind == "CMD-SHELL" else words


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Put variables into every string; raise ``ValueError`` where a required one is missing."""
    if isinstance(value, dict):
        return {key: interpolated(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, variables) for each in value]
    if isinstance(value, str) and "$" in value:
        return var_interpolate(value, dict(variables))
    return value


@cache
def raw() -> dict[str, Any]:
    """Return the file without any variable put in."""
    return cast("dict[str, Any]", yaml.safe_load(COMPOSE_FILE.read_text()))


@cache
def services(**variables: str) -> dict[str, Service]:
    """Return all services by name, with all secrets and the given variables put in."""
    found = interpolated(raw()["services"], SECRETS | variables)
    return {name: Service(name, definition) for name, definition in found.items()}
