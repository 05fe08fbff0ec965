"""What lakectl and other clients see of the protocol itself: headers, bounds, plain requests."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from lakefs.branch import Branch
from lakefs.client import Client
from lakefs.exceptions import ConflictException
from lakefs.repository import Repository

from tests.integration.lakefs_contract.conftest import REAL
from tests.integration.lakefs_contract.steps import commit, message_of, namespace

#: How lakectl signs its requests.
LAKECTL = {"User-Agent": "lakectl/1.83.0", "X-Lakefs-Client": "lakectl/1.83.0"}


@pytest.fixture
def http(client: Client) -> Iterator[httpx.Client]:
    """Plain HTTP with the client's credentials."""
    config = client.config
    base = config.host.removesuffix("/api/v1") + "/api/v1"
    auth = (config.username, config.password)
    with httpx.Client(base_url=base, auth=auth, headers=LAKECTL, timeout=60) as http:
        yield http


@pytest.fixture
def at(repository: Repository) -> str:
    """The path of the test's repository."""
    return f"/repositories/{repository.id}"


def upload(http: httpx.Client, at: str, path: str, **headers: str) -> dict[str, Any]:
    """Upload as lakectl does: a form with one part."""
    answer = http.post(
        f"{at}/branches/main/objects",
        params={"path": path},
        files={"content": (path, b"content", "application/octet-stream")},
        headers=headers,
    )
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


def test_an_answer_without_content_has_no_type(http: httpx.Client, at: str) -> None:
    upload(http, at, "a")
    branches = f"{at}/branches"
    http.post(branches, json={"name": "dev", "source": "main"}).raise_for_status()
    for method, path, body in (
        ("GET", "/healthcheck", None),
        ("DELETE", f"{branches}/main/objects?path=a", None),
        ("PUT", f"{branches}/main", {"type": "reset"}),
        ("DELETE", f"{branches}/dev", None),
        ("POST", f"{at}/metadata", {"metadata": {"k": "v"}}),
        ("DELETE", f"{at}/metadata", {"keys": ["k"]}),
    ):
        answer = http.request(method, path, json=body)
        assert answer.status_code == 204, (method, path, answer.text)
        # lakectl's client takes a type for a body, and fails to read it.
        assert "content-type" not in answer.headers
        assert answer.content == b""


def test_headers_of_an_upload_become_metadata(http: httpx.Client, at: str) -> None:
    expected = {"::lakefs::client-mtime": "1700000000", "::lakefs::posix-mode": "5", "k": "v"}
    headers = {
        "X-Lakefs-Internal-Client-Mtime": "1700000000",
        "x-lakefs-internal-POSIX-mode": "5",
        "X-Lakefs-Meta-K": "v",
    }
    assert upload(http, at, "a", **headers)["metadata"] == expected
    listed = http.get(f"{at}/refs/main/objects/ls", params={"amount": 1000}).json()["results"]
    assert [item["metadata"] for item in listed] == [expected]


def test_the_server_is_a_lakefs_to_lakectl(http: httpx.Client) -> None:
    version = http.get("/config").json()["version_config"]
    assert version == http.get("/config/version").json()
    assert version["version_context"] == "lakeFS"
    login = http.get("/setup_lakefs").json()["login_config"]
    assert login["RBAC"] == "none"
    assert {"login_url", "login_cookie_names", "logout_url"} <= login.keys()


def test_the_committer_is_the_user(http: httpx.Client, main: Branch) -> None:
    user = http.get("/user").json()["user"]
    assert (user["friendly_name"], user["email"]) == ("", "")
    made = main.commit("empty", allow_empty=True).get_commit()
    assert made.committer == user["id"]


@pytest.mark.parametrize("amount", ["1001", "-2", "many"])
@pytest.mark.parametrize("listing", ["refs/main/objects/ls", "refs/main/commits", "branches"])
def test_an_amount_out_of_bounds_is_refused(
    http: httpx.Client, at: str, listing: str, amount: str
) -> None:
    answer = http.get(f"{at}/{listing}", params={"amount": amount})
    assert answer.status_code == 400
    assert "amount" in answer.json()["message"]


def test_an_amount_of_none_is_the_usual_one(http: httpx.Client, at: str) -> None:
    upload(http, at, "a")
    for amount in (-1, 0, 1000):
        page = http.get(f"{at}/refs/main/objects/ls", params={"amount": amount}).json()
        assert page["pagination"]["results"] == 1


def test_an_unknown_storage_is_refused(http: httpx.Client) -> None:
    name = "contract-of-no-storage"
    body = {"name": name, "storage_namespace": namespace(name), "storage_id": "nowhere"}
    answer = http.post("/repositories", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"message": "storage id: invalid value: validation error"}
    assert http.get(f"/repositories/{name}").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", ""), ("PATCH", "/branches"), ("GET", "/no")])
def test_what_is_not_in_the_api_is_not_found(
    http: httpx.Client, at: str, method: str, path: str
) -> None:
    answer = http.request(method, at + path)
    assert (answer.status_code, answer.json()) == (404, {"message": "invalid API endpoint"})


def test_the_size_of_a_removed_object(http: httpx.Client, at: str, main: Branch) -> None:
    commit(main, "one", a="12345")
    main.object("a").delete()
    (staged,) = http.get(f"{at}/branches/main/diff").json()["results"]
    main.commit("two")
    (committed,) = http.get(f"{at}/refs/main~1/diff/main").json()["results"]
    assert (staged["type"], staged["size_bytes"]) == ("removed", 0)
    assert (committed["type"], committed["size_bytes"]) == ("removed", 5)


def test_a_conflict_of_a_single_commit_is_named(repository: Repository, main: Branch) -> None:
    dev = repository.branch("dev").create("main")
    commit(dev, "theirs", a="theirs")
    first = commit(main, "ours", a="ours")
    commit(main, "ours again", a="ours again")
    with pytest.raises(ConflictException) as picked:
        main.cherry_pick("dev")
    with pytest.raises(ConflictException) as reverted:
        main.revert(first)
    assert message_of(picked) == message_of(reverted) == "update branch: conflict found"


def test_actions_are_refused_where_they_are_not_run(http: httpx.Client, at: str) -> None:
    if REAL:
        return  # a real lakeFS runs them
    upload(http, at, "_lakefs_actions/check.yaml")
    commits = f"{at}/branches/main/commits"
    refused = http.post(commits, json={"message": "add an action"})
    assert refused.status_code == 501
    assert "_lakefs_actions/check.yaml" in refused.json()["message"]
    http.delete(f"{at}/branches/main/objects", params={"path": "_lakefs_actions/check.yaml"})
    upload(http, at, "a")
    assert http.post(commits, json={"message": "without"}).status_code == 201


def test_a_listing_leaves_out_metadata_that_is_empty(http: httpx.Client, at: str) -> None:
    upload(http, at, "a", **{"X-Lakefs-Meta-K": "v"})
    upload(http, at, "b")

    def listed(**params: str) -> list[Any]:
        page = http.get(f"{at}/refs/main/objects/ls", params=params).json()
        return [item.get("metadata") for item in page["results"]]

    assert listed() == [{"k": "v"}, None]
    assert listed(user_metadata="false") == [None, None]
    assert http.get(f"{at}/refs/main/objects/stat", params={"path": "b"}).json()["metadata"] == {}


def test_the_sides_of_a_merge_base_are_confused(
    http: httpx.Client, at: str, repository: Repository, main: Branch
) -> None:
    dev = repository.branch("dev").create("main")
    base, theirs, ours = main.head.id, commit(dev, "theirs", a="1"), commit(main, "ours", b="1")
    assert http.get(f"{at}/refs/dev/merge/main").json() == {
        "base_commit_id": base,
        "source_commit_id": ours,
        "destination_commit_id": theirs,
    }


def test_objects_of_a_branch_that_is_not_there_are_not_missed(http: httpx.Client, at: str) -> None:
    answer = http.post(f"{at}/branches/nowhere/objects/delete", json={"paths": ["a"]})
    assert (answer.status_code, answer.json()) == (200, {"errors": []})


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "refs/nowhere/commits", "ref: not found"),
        ("GET", "refs/nowhere/objects/ls", "not found"),
        ("GET", "refs/nowhere/diff/main", "get commit by branch nowhere: not found"),
        ("GET", "refs/main/diff/nowhere", "get commit by ref nowhere: not found"),
        (
            "POST",
            "refs/nowhere/merge/main",
            "update branch main: get commit by ref nowhere: not found",
        ),
        ("POST", "refs/main/merge/nowhere", "branch not found"),
        ("POST", "branches/main/cherry-pick", "get commit from ref nowhere: not found"),
        ("GET", "commits/nowhere", "commit not found"),
        ("GET", "branches/nowhere", "branch not found"),
        ("GET", "tags/nowhere", "tag not found"),
    ],
)
def test_what_is_not_found_is_named(
    http: httpx.Client, at: str, method: str, path: str, message: str
) -> None:
    body = {"ref": "nowhere"} if method == "POST" else None
    answer = http.request(method, f"{at}/{path}", json=body)
    assert (answer.status_code, answer.json()) == (404, {"message": message})
