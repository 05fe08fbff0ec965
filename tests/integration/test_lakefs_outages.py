"""lakeFS that is half away: without its database, behind another server, or slow in its hooks."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared.errors import RequestError, UnavailableError
from shared.jobs import JobKind
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings, StorageSettings
from shared.staging import StagingArea
from tests.integration.conftest import NewRun
from tests.lakefs_faults import Answer, Call, FaultyLakeFS, faulty_lakefs
from tests.processes import wait_until
from workers.lifecycle.upload import Upload


@pytest.fixture
def lakefs(tmp_path: Path) -> Iterator[FaultyLakeFS]:
    with faulty_lakefs(tmp_path / "lakefs") as running:
        yield running


def store_of(settings: LakeFSSettings) -> "closing[LakeFSStore]":
    return closing(LakeFSStore(settings))


def test_a_database_that_goes_away_is_an_outage(lakefs: FaultyLakeFS) -> None:
    with store_of(lakefs.settings) as store:
        store.ensure_repository("models")
        with lakefs.database_away():
            for _ in range(6):  # 500 at first, then 401
                with pytest.raises(UnavailableError) as caught:
                    store.commit_id("models", "main")
                assert caught.value.service == "lakeFS"
            assert "worked before" in caught.value.detail
        assert store.commit_id("models", "main")


def test_keys_that_may_not_do_it_are_no_outage(lakefs: FaultyLakeFS) -> None:
    with store_of(lakefs.settings) as store:
        store.ensure_repository("models")
        lakefs.on("get_commit", Answer(401, "insufficient permissions: fs:ReadCommit"))
        with pytest.raises(RequestError, match="fs:ReadCommit") as caught:
            store.commit_id("models", "main")
        assert caught.value.specific_code == "lakefs_unauthorized"


def test_keys_that_never_worked_fail_at_once_and_name_both_causes(lakefs: FaultyLakeFS) -> None:
    wrong = lakefs.settings.model_copy(update={"access_key_id": "nobody"})
    with store_of(wrong) as store, pytest.raises(RequestError, match="database is away") as caught:
        store.ensure_repository("models")
    assert caught.value.specific_code == "lakefs_unauthorized"


def test_another_server_at_the_address_is_named(mlflow_like: str) -> None:
    elsewhere = LakeFSSettings(endpoint=mlflow_like)
    with store_of(elsewhere) as store, pytest.raises(RequestError) as caught:
        store.ensure_repository("models")
    assert caught.value.specific_code == "lakefs_wrong_address"
    assert "LAKEFS_ENDPOINT" in caught.value.detail


@pytest.fixture(params=["page", "not found"])
def mlflow_like(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server whose every answer is a page, or its own 404."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415

    is_page = request.param == "page"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html>MLflow</html>" if is_page else b'{"detail":"Not Found"}'
            self.send_response(200 if is_page else 404)
            self.send_header("Content-Type", "text/html" if is_page else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_merge_whose_answer_takes_too_long_is_not_made_twice(
    lakefs: FaultyLakeFS, tmp_path: Path, new_run: NewRun
) -> None:
    staging = StagingArea(StorageSettings(staging_dir=tmp_path / "staging", reserve_bytes=0))
    (tmp_path / "staging" / "model").mkdir(parents=True)
    (tmp_path / "staging" / "model" / "config.json").write_text("{}")
    slow, merges = threading.Event(), list[str]()

    def after(call: Call) -> Answer | None:
        if call.name == "merge":
            merges.append(call.path)
            slow.wait(60)  # a hook after the merge, that takes longer than the limit
        return None

    lakefs.after = after
    impatient = lakefs.settings.model_copy(update={"timeout_seconds": 2.0})
    with store_of(impatient) as store, store_of(lakefs.direct) as direct:
        request = {"repo_name": "models", "local_model_name": "model"}
        upload, run = Upload(store, staging, impatient), new_run(JobKind.UPLOAD, request)
        with pytest.raises(UnavailableError, match="hook") as caught:
            upload(run.context)
        assert caught.value.retry_after_seconds
        slow.set()
        job_id = run.context.job.id
        wait_until(
            lambda: direct.commit("models", "main").metadata.get("job_id") == job_id, what="a merge"
        )
        result = upload(new_run(JobKind.UPLOAD, request, job_id=job_id).context)
        assert result["commit_id"] == direct.commit_id("models", "main")
        assert len(merges) == 1
