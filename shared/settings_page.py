"""Writes docs/configuration.md from the settings themselves; ``--check`` fails when it is old."""

from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.generated_page import keep
from shared.settings import Group, Settings

PAGE = Path("docs/configuration.md")
INTRODUCTION = """# Configuration

Generated from `shared/settings` by `make docs`. Sources, the later wins: the defaults, a
section for each group in `config/base.yaml` (another file through `LIFECYCLE_CONFIG`), `.env`,
the environment.
"""


def page() -> str:
    """Return the whole document."""
    groups = [field.annotation for field in Settings.model_fields.values()]
    parts = [_group(group) for group in groups if isinstance(group, type)]
    return "\n".join([INTRODUCTION, *parts])


def _group(group: type[Group]) -> str:
    prefix = group.model_config.get("env_prefix", "")
    rows = [
        f"| `{prefix}{name}`".upper() + f" | {_default(field)} | {field.description} |"
        for name, field in group.model_fields.items()
    ]
    head = [f"## {group.section}", "", group.__doc__ or "", "", "| variable | default | meaning |"]
    return "\n".join([*head, "| --- | --- | --- |", *rows, ""])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "this host's name"
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        value = value.model_dump_json(exclude_none=True)
    return "" if value in (None, "", PydanticUndefined) else f"`{value}`"


def main() -> None:
    """Write the page, or compare it with what is there."""
    keep(PAGE, page())


if __name__ == "__main__":
    main()
