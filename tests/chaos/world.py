"""The models that the jobs are about: made on the spot, published at the hub, some registered."""

import hashlib
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from embedded.hub.repository import publish
from tests.chaos.misbehaviour import ENGINE, TASK
from tests.chaos.submissions import Catalog
from tests.platform import Platform
from tests.processes import wait_until
from tests.tiny_models import tiny_llama

KIB = 1024
#: Sent in several pieces, so that a transfer can break in its middle.
LARGEST_BYTES = 3 * 1024 * KIB

#: sha256 by path.
Digests = dict[str, str]


@dataclass(frozen=True)
class Size:
    """How much there is."""

    fresh: int
    staged: int
    chats: int


class World:
    """Models by their names at the hub, with what each consists of."""

    def __init__(self, root: Path, scratch: Path, seed: int, size: Size) -> None:
        self.root = root
        self._scratch = scratch
        self._rng = random.Random(f"world {seed}")
        self.size = size
        #: By the name in the staging area.
        self.digests: dict[str, Digests] = {}

    def publish(self, unique: str) -> Catalog:
        """Make all models and put them on the hub; registered names start with ``unique``."""
        chats = [f"{unique}-chat-{number}" for number in range(self.size.chats)]
        for number, name in enumerate(chats):
            self._put(name, tiny_llama(self._scratch / name, seed=number))
        deeds = f"{unique}-deeds"
        self._put(deeds, self._write(deeds, {"deeds.json": b"{}"}))
        staged = [f"staged-{number}" for number in range(self.size.staged)]
        fresh = [f"fresh-{number}" for number in range(self.size.fresh)]
        for name in staged + fresh:
            self._put(name, self._noise(name))
        shutil.rmtree(self._scratch)
        return Catalog(
            unique=unique,
            fresh=[f"chaos/{name}" for name in fresh],
            staged=[f"chaos_{name}" for name in staged],
            chats=chats,
            deeds=deeds,
        )

    def prepare(self, platform: Platform, catalog: Catalog) -> dict[str, str]:
        """Bring models to where the jobs expect them; return the commits of the registered ones."""
        wait_until(lambda: _knows_deeds(platform), 90, "a GPU worker has told of the plugin")
        names = [f"chaos/{name.removeprefix('chaos_')}" for name in catalog.staged]
        items = [{"model_name": name} for name in names]
        platform.done("/models/batch_download", downloads=items)

        def register(name: str) -> str:
            task, engine = (TASK, ENGINE) if name == catalog.deeds else _CHAT
            return _register(platform, name, task, engine)

        models = [*catalog.chats, catalog.deeds]
        with ThreadPoolExecutor(len(models)) as pool:
            return dict(zip(models, pool.map(register, models), strict=True))

    def _put(self, name: str, directory: Path) -> None:
        publish(self.root, f"chaos/{name}", directory)
        self.digests[f"chaos_{name}"] = digests(directory)

    def _noise(self, name: str) -> Path:
        """Write a model of random weights, that is moved and never loaded."""
        size = LARGEST_BYTES if self._rng.random() < 0.1 else self._rng.randrange(KIB, 200 * KIB)
        config = {"architectures": ["LlamaForCausalLM"], "name": name}
        files = {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": self._rng.randbytes(size),
            "nested/notes.txt": name.encode(),
        }
        return self._write(name, files)

    def _write(self, name: str, files: dict[str, bytes]) -> Path:
        for path, content in files.items():
            file = self._scratch / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return self._scratch / name


_CHAT = ("text-generation", "transformers")


def _knows_deeds(platform: Platform) -> bool:
    workers = platform.http.get("/inference/stats").raise_for_status().json()["workers"]
    return any(f"{TASK}:{ENGINE}" in worker["handlers"] for worker in workers.values())


def _register(platform: Platform, name: str, task: str, engine: str) -> str:
    local = platform.done("/models/download", model_name=f"chaos/{name}")["local_model_name"]
    upload = platform.done("/models/upload_to_lakefs", repo_name=name, local_model_name=local)
    platform.done(
        "/models/register_from_lakefs",
        registered_name=name,
        task=task,
        engine=engine,
        lakefs_repo=name,
        commit_id=upload["commit_id"],
        path=upload["path"],
        stage="production",
    )
    return str(upload["commit_id"])


def digests(directory: Path) -> Digests:
    """Return the digests of the files below a directory, hidden ones left out."""
    return {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }
