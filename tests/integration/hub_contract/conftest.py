"""The hub under test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.hub.process import HubProcess
from embedded.hub.repository import ModelStore, publish
from tests.integration.hub_contract.target import MODEL, TOKEN, Target, write_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[HubProcess]:
    root = tmp_path_factory.mktemp("hub")
    publish(root, MODEL, model_dir)
    for model_id in ("acme/secret", "acme/gated"):
        publish(root, model_id, model_dir)
    ModelStore(root).set_access("acme/secret", private=True)
    ModelStore(root).set_access("acme/gated", gated=True)
    # The CDN under another name, so that the client takes it for another host.
    with HubProcess(root, "--cdn-host", "localhost", token=TOKEN) as process:
        yield process


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Target:
    if endpoint := os.environ.get("HF_TEST_ENDPOINT"):
        return Target(endpoint, os.environ["HF_TEST_MODEL"])
    return Target(request.getfixturevalue("hub").url, MODEL)


@pytest.fixture
def sound_hub(hub: HubProcess) -> Iterator[HubProcess]:
    hub.reset_stats()
    yield hub
    hub.set_faults()
