"""The server that the contract is checked against, and a repository on it."""

import os
import uuid
from collections.abc import Iterator

import pytest
from lakefs.branch import Branch
from lakefs.client import Client
from lakefs.repository import Repository

from tests.integration.lakefs_contract.steps import namespace
from tests.integration.lakefs_server import EmbeddedServer, connect

REAL = os.environ.get("LAKEFS_ENDPOINT")


@pytest.fixture(scope="package", params=["real"] if REAL else ["proxied", "presigned"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a real lakeFS, or of the embedded server in each of its modes."""
    if REAL:
        keys = ("LAKEFS_ACCESS_KEY_ID", "LAKEFS_SECRET_ACCESS_KEY")
        yield connect(REAL, *(os.environ[key] for key in keys))
        return
    presign = request.param == "presigned"
    with EmbeddedServer(tmp_path_factory.mktemp("lakefs"), presign=presign) as server:
        yield server.client()


@pytest.fixture
def repository(client: Client) -> Iterator[Repository]:
    """A repository of this test's own."""
    name = f"contract-{uuid.uuid4().hex[:16]}"
    repository = Repository(name, client).create(namespace(name))
    yield repository
    repository.delete()


@pytest.fixture
def main(repository: Repository) -> Branch:
    """The default branch of the repository."""
    return repository.branch("main")
