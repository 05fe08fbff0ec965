"""What the embedded hub does beside the protocol: revisions, listings, access."""

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata
from huggingface_hub.hf_api import RepoFile, RepoFolder

from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from tests.integration.hub_contract.target import MODEL, TOKEN, WEIGHTS, WEIGHTS_BYTES, write_model


def test_old_revisions_branches_and_tags_stay_readable(hub: HubProcess, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    first = publish(hub.root, "moving", write_model(tmp_path / "a", seed=1))
    publish(hub.root, "moving", tmp_path / "a", "v1", tag=True)
    second = publish(hub.root, "moving", write_model(tmp_path / "b", seed=2))
    other = publish(hub.root, "moving", write_model(tmp_path / "c", seed=3), "feature/x")
    assert api.model_info("moving").sha == second
    assert api.model_info("moving", revision="v1").sha == first
    assert api.model_info("moving", revision="feature/x").sha == other
    assert {ref.name for ref in api.list_repo_refs("moving").branches} == {"main", "feature/x"}
    for revision, folder in ((first, "a"), ("v1", "a"), ("main", "b"), ("feature/x", "c")):
        path = hf_hub_download(
            "moving",
            WEIGHTS,
            revision=revision,
            endpoint=hub.url,
            cache_dir=tmp_path / "cache",
            token=False,
        )
        assert Path(path).read_bytes() == (tmp_path / folder / WEIGHTS).read_bytes()


def test_a_folder_lists_its_own_entries(hub: HubProcess) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    entries = list(api.list_repo_tree(MODEL, "1_Pooling", expand=True))
    assert [(type(entry), entry.path) for entry in entries] == [
        (RepoFile, "1_Pooling/config.json"),
        (RepoFolder, "1_Pooling/extra"),
    ]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(MODEL, "no-such-folder"))


def test_directories_under_the_root_are_served_through_small_pages(tmp_path: Path) -> None:
    write_model(tmp_path / "acme" / "found")
    write_model(tmp_path / "alone")
    with HubProcess(tmp_path, "--tree-page-size", "2") as process:
        api = HfApi(endpoint=process.url, token=False)
        assert [model.id for model in api.list_models()] == ["acme/found", "alone"]
        assert len(list(api.list_repo_tree("acme/found", recursive=True))) == 7
        # One host, so that the client follows the redirect to the CDN by itself.
        path = hf_hub_download(
            "alone", WEIGHTS, endpoint=process.url, cache_dir=tmp_path / ".cache", token=False
        )
        assert Path(path).read_bytes() == (tmp_path / "alone" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/acme/tiny/resolve/main/../../../../etc/passwd",
        "/acme/tiny/resolve/main/%2e%2e/%2e%2e/etc/passwd",
        "/acme/tiny/resolve/main/..%2f..%2fetc%2fpasswd",
        "/acme/tiny/resolve/main/%252e%252e/etc/passwd",
        "/acme/tiny/resolve/main//etc/passwd",
        "/acme/tiny/resolve/main/config.json%00",
        "/acme/tiny/resolve/..%2f..%2frepo.json/config.json",
        "/acme/..%2f..%2ftiny/resolve/main/config.json",
        "/api/models/..%2f.hub",
        "/api/models/acme/tiny/tree/main/..",
        "/api/models/acme/tiny/revision/%ff",
        "/cdn/acme/tiny/blob/main/../repo.json",
    ],
)
def test_path_tricks_lead_nowhere(hub: HubProcess, path: str) -> None:
    address = urlsplit(hub.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    try:
        connection.request("GET", path)
        assert connection.getresponse().status in {400, 401, 403, 404}
    finally:
        connection.close()


def test_a_private_model_does_not_exist_without_the_token(hub: HubProcess, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError) as refused:
        HfApi(endpoint=hub.url, token=False).model_info("acme/secret")
    assert refused.value.response.status_code == 401
    path = hf_hub_download(
        "acme/secret", WEIGHTS, endpoint=hub.url, cache_dir=tmp_path, token=TOKEN
    )
    assert Path(path).stat().st_size == WEIGHTS_BYTES
    member = HfApi(endpoint=hub.url, token=TOKEN)
    with pytest.raises(RepositoryNotFoundError) as missing:
        member.model_info("acme/nothing")
    assert missing.value.response.status_code == 404


def test_a_gated_model_is_seen_but_not_fetched_without_the_token(hub: HubProcess) -> None:
    anonymous = HfApi(endpoint=hub.url, token=False)
    assert anonymous.model_info("acme/gated").gated == "auto"
    with pytest.raises(GatedRepoError):
        anonymous.auth_check("acme/gated")
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(hub.url + "/acme/gated/resolve/main/config.json", token=False)
    HfApi(endpoint=hub.url, token=TOKEN).auth_check("acme/gated")


def test_a_wrong_token_is_refused_even_for_a_public_model(hub: HubProcess) -> None:
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_wrong").model_info(MODEL)


def test_a_link_to_the_cdn_cannot_be_made_up(hub: HubProcess) -> None:
    resolve = f"{hub.url}/acme/secret/resolve/main/{WEIGHTS}"
    answer = httpx.head(resolve, headers={"Authorization": f"Bearer {TOKEN}"})
    link = httpx.URL(answer.headers["Location"])
    assert httpx.head(link).status_code == 200
    assert httpx.head(link.copy_with(query=None)).status_code == 403
    assert httpx.head(link.copy_set_param("Expires", "99999999999")).status_code == 403
