"""What the platform asks MLflow."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from shared.errors import LifecycleError, NotFoundError
from shared.registry.client import Client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.entities import PagedList

T = TypeVar("T")

PAGE = 200
#: MLflow's default, last updated first, moves entries between pages while they are read.
ORDER = ["name ASC", "version_number DESC"]


#: The first letters of a name, by which those that are like it are looked for.
_PLAIN = re.compile(r"[A-Za-z0-9]{1,3}")


class Queries:
    """Reads registered models and versions.

    Aliases are read from the models: MLflow may leave them out of versions that it searches.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def models(self) -> "list[RegisteredModel]":
        """Return all registered models."""
        return self._pages(
            lambda mlflow, page: mlflow.search_registered_models(max_results=PAGE, page_token=page)
        )

    def versions(self, **conditions: str) -> "list[ModelVersion]":
        """Return versions, by name and newest first; conditions are on the name and on tags."""
        text = _filter(conditions)
        return self._pages(
            lambda mlflow, page: mlflow.search_model_versions(
                text, max_results=PAGE, order_by=ORDER, page_token=page
            )
        )

    def newest(self, name: str, stage: str) -> "ModelVersion | None":
        """Return the newest version of a model in a stage."""
        text = _filter({"name": name, "stage": stage})
        found = self._client.call(
            lambda mlflow: mlflow.search_model_versions(text, max_results=1, order_by=ORDER)
        )
        return found[0] if found else None

    def version(self, name: str, version: str) -> "ModelVersion":
        """Return one version."""
        try:
            return self._client.call(lambda mlflow: mlflow.get_model_version(name, version))
        except NotFoundError:
            self.aliases(name)
            raise missing_version(name, version) from None

    def aliases(self, name: str) -> dict[str, str]:
        """Return the version of each alias of a model, which must exist."""
        try:
            model = self._client.call(lambda mlflow: mlflow.get_registered_model(name))
        except NotFoundError:
            near = self._near(name)
            hint = f". Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise NotFoundError(
                f"MLflow has no registered model {name!r}{hint}", code="registered_model_not_found"
            ) from None
        return {alias: str(version) for alias, version in model.aliases.items()}

    def _near(self, name: str) -> list[str]:
        """Return names of registered models that are like one that does not exist."""
        start = _PLAIN.match(name)
        if start is None:
            return []
        text = f"name ILIKE '{start[0]}%'"
        try:
            found = self._client.call(
                lambda mlflow: mlflow.search_registered_models(text, max_results=PAGE)
            )
        except LifecycleError:
            return []
        return difflib.get_close_matches(name, [model.name for model in found], n=3)

    def _pages(self, ask: "Callable[[MlflowClient, str | None], PagedList[T]]") -> list[T]:
        found: list[T] = []
        token: str | None = None
        while True:
            page = self._client.call(partial(_turn, ask, token))
            found += page
            token = page.token
            if not token:
                return found


def _turn(
    ask: "Callable[[MlflowClient, str | None], PagedList[T]]",
    token: str | None,
    mlflow: "MlflowClient",
) -> "PagedList[T]":
    """Ask for the page that a token stands for."""
    return ask(mlflow, token)


def missing_version(name: str, version: str) -> NotFoundError:
    """Return the error that names a version which a model does not have."""
    return NotFoundError(
        f"registered model {name!r} has no version {version}", code="version_not_found"
    )


def _filter(conditions: dict[str, str]) -> str:
    """Write conditions in MLflow's search language: it has no escapes but two kinds of quotes."""
    terms = []
    for key, value in conditions.items():
        quote = '"' if "'" in value else "'"
        column = "name" if key == "name" else f"tags.`{key}`"
        terms.append(f"{column} = {quote}{value}{quote}")
    return " and ".join(terms)
