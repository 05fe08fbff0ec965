"""Dockerfiles as data: stages, each with what it does."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

from tests.deployment.compose_file import words_of_health_check

_OPTION = re.compile(r"--([\w-]+)=(\S+)\s+")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its options apart."""

    name: str
    value: str
    options: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> str | None:
        """Return an option's value, if it is there."""
        return dict(self.options).get(name)


@dataclass(frozen=True)
class Stage:
    """A stage, with the stage that it goes on from, if that is one of the same file."""

    name: str
    image: str
    parent: "Stage | None"
    own: tuple[Instruction, ...]

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """All that leads to this stage, from its image on."""
        return (*(self.parent.instructions if self.parent else ()), *self.own)

    def last(self, name: str) -> str:
        """Return the value of the last instruction of a name."""
        return next(each.value for each in reversed(self.instructions) if each.name == name)

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return [str(word) for word in json.loads(self.last("CMD"))]

    @property
    def health_check(self) -> list[str]:
        """How a container's health is asked for, as words to execute."""
        kind, _, words = self.last("HEALTHCHECK").partition(" ")
        return words_of_health_check([kind, *json.loads(words)])

    @property
    def sources(self) -> Iterator[str]:
        """What it copies of the repository."""
        for each in self.instructions:
            if each.name == "COPY" and not each.option("from"):
                yield from each.value.split()[:-1]

    @property
    def stages_copied(self) -> list[tuple[str, str, str]]:
        """What it copies of other stages: the stage, the source and the destination."""
        return [
            (stage, *_pair(each.value))
            for each in self.own
            if each.name == "COPY" and (stage := each.option("from"))
        ]


def stages(path: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name; one without a name is called as its number."""
    found: dict[str, Stage] = {}
    for instruction in _instructions(path):
        if instruction.name == "FROM":
            image, _, name = instruction.value.partition(" AS ")
            name = name or str(len(found))
            found[name] = Stage(name, image, found.get(image), ())
        else:
            *_, last = found.values()
            own = (*last.own, instruction)
            found[last.name] = Stage(last.name, last.image, last.parent, own)
    return found


def final_stage(path: Path, target: str = "") -> Stage:
    """Return the stage that an image is made of: the target, or the last one."""
    found = stages(path)
    return found[target] if target else list(found.values())[-1]


def variables(instruction: Instruction) -> dict[str, str]:
    """Return what an ENV sets, as it is written."""
    pairs = (word.split("=", 1) for word in shlex.split(instruction.value))
    return {pair[0]: pair[1] for pair in pairs}


def _pair(value: str) -> tuple[str, str]:
    source, destination = value.split()
    return source, destination


def _instructions(path: Path) -> Iterator[Instruction]:
    with path.open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    for entry in structure:
        if entry["instruction"] != "COMMENT":
            yield _instruction(entry["instruction"], entry["value"])


def _instruction(name: str, value: str) -> Instruction:
    options = []
    while option := _OPTION.match(value):
        options.append((option[1], option[2]))
        value = value[option.end() :]
    return Instruction(name, value, tuple(options))
