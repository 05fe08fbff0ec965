"""Writes docs/api.md from the front's OpenAPI; ``--check`` fails when it is old."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.app import create_app
from shared.generated_page import keep
from shared.settings import Settings

PAGE = Path("docs/api.md")
INTRODUCTION = """# API

Generated from the OpenAPI by `make docs`; a running front shows the same, to try out, at `/docs`.
A field or parameter with `?` may be left out. How to wait for a job: [synchronous](synchronous.md).
"""
Schema = dict[str, Any]
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def page() -> str:
    """Return the whole document."""
    document = create_app(Settings()).openapi()
    sections: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            (tag,) = call["tags"]
            sections.setdefault(tag, [f"## {tag.capitalize()}", ""])
            sections[tag] += _call(f"{method.upper()} {path}", call)
    parts = [line for section in sections.values() for line in section]
    schemas = sorted(document["components"]["schemas"].items())
    fields = [line for name, schema in schemas for line in _schema(name, schema)]
    return "\n".join([INTRODUCTION, *parts, "## Schemas", "", *fields]).rstrip() + "\n"


def _call(title: str, call: Schema) -> Iterator[str]:
    yield from (f"### {title}", "", f"{call['summary']}. {call.get('description', '')}".strip(), "")
    if parameters := call.get("parameters"):
        yield from ("| parameter | in | type | |", "| --- | --- | --- | --- |")
        for each in parameters:
            name = _named(each["name"], required=each["required"])
            text = each.get("description", "")
            yield f"| {name} | {each['in']} | {_type(each['schema'])} | {_cell(text)} |"
        yield ""
    for media_type, body in call.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body, `{media_type}`: {_type(body['schema'])}", "")
        for example in body.get("examples", {}).values():
            text = json.dumps(example["value"], indent=2, ensure_ascii=False)
            yield from ("```json", text, "```", "")
    yield from (f"Answers: {_answers(call['responses'])}.", "")


def _answers(responses: dict[str, Schema]) -> str:
    """Return what a call answers; the statuses that come with a problem document, together."""
    good, problems = [], []
    for status, answer in sorted(responses.items()):
        if int(status) >= 400:
            problems.append(f"`{status}`")
            continue
        kinds = answer.get("content", {}).items()
        types = [
            _type(each["schema"]) if each.get("schema") else f"`{kind}`" for kind, each in kinds
        ]
        good.append(" ".join([f"`{status}`", *types]))
    refused = [f"[Problem](#problem) with {' '.join(problems)}"] if problems else []
    return "; ".join(good + refused)


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield from (f"### {name}", "")
    if text := schema.get("description"):
        yield from (" ".join(text.split()), "")
    if "enum" in schema:
        yield from (_type(schema), "")
    if properties := schema.get("properties"):
        yield from ("| field | type | default | |", "| --- | --- | --- | --- |")
        required = schema.get("required", ())
        for field, each in properties.items():
            default = each.get("default")
            shown = "" if default is None else f"`{json.dumps(default)}`"
            named = _named(field, required=field in required)
            yield f"| {named} | {_type(each)} | {shown} | {_cell(each.get('description', ''))} |"
        yield ""


def _named(name: str, *, required: bool) -> str:
    return f"`{name}`" + ("" if required else "?")


def _type(schema: Schema) -> str:
    """Return a type as a word of Markdown, with the schemas it names linked."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    limits = [f"{sign} {schema[key]:g}" for key, sign in _LIMITS.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), *limits])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the page, or compare it with what is there."""
    keep(PAGE, page())


if __name__ == "__main__":
    main()
