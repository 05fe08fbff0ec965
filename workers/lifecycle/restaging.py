"""Models that were staged on a host which is lost: downloaded again where they are uploaded now."""

from datetime import UTC, datetime
from typing import Any

from shared.ledger import Placed, Placement
from shared.queue import UPLOADS
from shared.requests import DownloadRequest, UploadRequest
from workers.context import JobContext
from workers.lifecycle.download import Download


class Restaging:
    """Writes down what this host has staged, and stages what another host had."""

    def __init__(self, download: Download, placement: Placement, host_id: str) -> None:
        self._download = download
        self._placement = placement
        self._host_id = host_id

    def stage(self, context: JobContext, request: DownloadRequest) -> dict[str, Any]:
        """Download a model to this host, and return the job's result."""
        result = self._download.fetch(context, request)
        pinned = request.model_copy(
            update={
                "revision": result["revision"],
                "timeout_seconds": None,
                "start_within_seconds": None,
            }
        )
        self._placement.record(
            Placed(
                host=self._host_id,
                source=pinned,
                files=result["files"],
                size_bytes=result["size_bytes"],
                staged_at=datetime.now(UTC),
            )
        )
        return result | {"host": self._host_id}

    def __call__(self, context: JobContext, request: UploadRequest) -> None:
        """Have the model of an upload here, if its host was given up and the upload is for all.

        A model of the same name may be here already, at another commit: what is uploaded is the
        one that was staged last.
        """
        placed = self._placement.find(request.local_model_name)
        if context.job.queue == UPLOADS and placed and placed.host != self._host_id:
            self.stage(context, placed.source)
