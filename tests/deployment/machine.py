"""This machine as the place of containers: where their paths, names and ports are."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import free_port

_NAME = re.compile(r"\b(redis|mlflow|lakefs|ollama):(?=\d)")
_PORT = re.compile(r"\b(5000|5555|6379|8000|8009|11434)\b")
#: At the beginning of a word, so that the path of an address stays what it is.
_PATH = re.compile(r"(?<![\w.:/-])/(opt|app|build|data|etc)\b")


@dataclass
class Machine:
    """Containers share its root, and each finds the others on the loopback address."""

    root: Path
    _ports: dict[str, int] = field(default_factory=dict)

    def port(self, number: str) -> int:
        """Return the free port that stands in for a port of a container."""
        return self._ports.setdefault(number, free_port())

    def here(self, text: str, opt: Path | None = None) -> str:
        """Return a text of a container with what it names as it is here.

        What an image installs lies under its own ``opt``. For MLflow's database SQLite stands in.
        """
        text = text.replace("postgresql:///mlflow", f"sqlite://{self.root}/mlflow.db")
        text = _NAME.sub("127.0.0.1:", text).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        text = _PORT.sub(lambda found: str(self.port(found[1])), text)
        return _PATH.sub(lambda found: f"{self._under(found[1], opt)}/{found[1]}", text)

    def path(self, path: str) -> Path:
        """Return where a path of a container is here."""
        return Path(self.here(path))

    def mount(self, volumes: Iterable[str], repository: Path) -> None:
        """Put the files of the repository that a service mounts where it looks for them."""
        for source, target in (volume.split(":")[:2] for volume in volumes):
            if source.startswith("./"):
                self._copy(repository / source, self.path(target))

    def _under(self, directory: str, opt: Path | None) -> Path:
        return opt if opt and directory == "opt" else self.root

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            for each in source.iterdir():
                self._copy(each, target / each.name)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.here(source.read_text()))


def bare_environment(**more: str) -> Mapping[str, str]:
    """Return an environment that knows nothing of the one that the tests run in."""
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": "/nonexistent", "LANG": "C.UTF-8", **more}
