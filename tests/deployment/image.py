"""Images as their Dockerfiles make them, in a directory in place of a container engine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.deployment import REPOSITORY
from tests.deployment.dockerfile import Instruction, Stage, final_stage, stages, variables

#: Of the environment of the tests; it would lead the interpreter of an image astray.
_LEFT_OUT = ("PYTHON", "VIRTUAL_ENV", "CONDA")


class Image:
    """What a target installs, under ``opt`` of a directory that outlives the tests' run.

    Its layers are made as the engine makes them: again when the instruction, those before it or
    the files that they copied are others than before.
    """

    def __init__(self, dockerfile: str, target: str, cache: Path) -> None:
        self.root = cache / "-".join(filter(None, [dockerfile.replace("/", "-"), target]))
        self.stage = final_stage(REPOSITORY / dockerfile, target)
        self._made_of = [
            stages(REPOSITORY / dockerfile)[name] for name, _, _ in self.stage.stages_copied
        ]
        self._record = self.root / "layers.json"

    def build(self) -> None:
        """Run what the stages run whose files the image takes."""
        for stage in self._made_of:
            self._build(stage)

    @property
    def directories(self) -> list[str]:
        """What the final stage makes for its process to write to."""
        runs = [each.value for each in self.stage.instructions if each.name == "RUN"]
        return [word for run in runs for word in run.split() if word.startswith(("/data", "/app"))]

    @property
    def environment(self) -> Iterator[tuple[str, str]]:
        """What the final stage sets."""
        for each in self.stage.instructions:
            if each.name == "ENV":
                yield from variables(each).items()

    @property
    def installed_bytes(self) -> int:
        """What all files of the installation take."""
        files = (self.root / "opt").rglob("*")
        return sum(
            path.stat().st_size for path in files if path.is_file() and not path.is_symlink()
        )

    @property
    def packages(self) -> set[str]:
        """The names of what is installed."""
        found = (self.root / "opt").rglob("*.dist-info")
        return {path.name.split("-")[0].lower().replace("_", "-") for path in found}

    def _build(self, stage: Stage) -> None:
        known: list[str] = json.loads(self._record.read_text()) if self._record.exists() else []
        keys = list(_keys(stage))
        changed = next((i for i, key in enumerate(keys) if key not in known[i : i + 1]), len(keys))
        runs = [each for each in stage.instructions[changed:] if each.name == "RUN"]
        if any("--reinstall" not in run.value for run in runs):
            # What is there might stay beside what is new.
            shutil.rmtree(self.root, ignore_errors=True)
            changed = 0
        self._execute(stage.instructions, changed)
        self._record.write_text(json.dumps(keys))

    def _execute(self, instructions: tuple[Instruction, ...], first_run: int) -> None:
        builder, work = self.root / "builder", self.root / "build"
        if not builder.exists():
            subprocess.run([sys.executable, "-m", "venv", builder], check=True)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        env = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
        env["PATH"] = f"{builder / 'bin'}{os.pathsep}{env['PATH']}"
        for number, each in enumerate(instructions):
            if each.name == "ENV":
                env |= {name: self._here(value) for name, value in variables(each).items()}
            elif each.name == "COPY":
                _copy(each.value.split(), work)
            elif each.name == "RUN" and number >= first_run:
                self._record.unlink(missing_ok=True)
                subprocess.run(["sh", "-c", each.value], cwd=work, env=env, check=True)

    def _here(self, value: str) -> str:
        return f"{self.root}{value}" if value.startswith("/opt/") else value


def _copy(words: list[str], work: Path) -> None:
    *sources, target = words
    for source in sources:
        here = work / target / (Path(source).name if target.endswith("/") else "")
        if (REPOSITORY / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / source, here, ignore=ignored)
        else:
            shutil.copy2(REPOSITORY / source, here)


def _keys(stage: Stage) -> Iterator[str]:
    """Yield a key for each layer."""
    digest = hashlib.sha256(sys.version.encode())
    for each in stage.instructions:
        digest.update(f"{each}".encode())
        for source in each.value.split()[:-1] if each.name == "COPY" else ():
            for path in sorted(_files(REPOSITORY / source)):
                digest.update(str(path).encode() + path.read_bytes())
        yield digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
