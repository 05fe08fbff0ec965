"""A hub under test, and a model to put on it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile

MODEL = "acme/tiny"
WEIGHTS = "model.safetensors"
WEIGHTS_BYTES = 3_000_000
TOKEN = "hf_made_up_for_this_test"


@dataclass(frozen=True)
class Target:
    """A hub under test and a public model on it."""

    endpoint: str
    model_id: str

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=False)

    def files(self) -> list[RepoFile]:
        listed = self.api.list_repo_tree(self.model_id, recursive=True)
        return [entry for entry in listed if isinstance(entry, RepoFile)]

    def file(self, *, lfs: bool) -> RepoFile:
        """The smallest file of a sort that a range can be cut out of."""
        fitting = [
            file for file in self.files() if (file.lfs is not None) is lfs and file.size >= 10
        ]
        return min(fitting, key=lambda file: file.size)

    def url(self, path: str, revision: str = "main") -> str:
        return hf_hub_url(self.model_id, path, revision=revision, endpoint=self.endpoint)


def write_model(directory: Path, seed: int = 0) -> Path:
    (directory / "1_Pooling" / "extra").mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "llama", "architectures": ["Llama"]}')
    (directory / WEIGHTS).write_bytes(Random(seed).randbytes(WEIGHTS_BYTES))
    (directory / "1_Pooling" / "config.json").write_text("{}")
    (directory / "1_Pooling" / "extra" / "a name with spaces + ü.txt").write_text("text")
    (directory / "vocab.bin").write_bytes(b"\x00\x01" * 50)
    return directory


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324


def expected_etag(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id
