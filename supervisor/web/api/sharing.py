"""Whether a queue is fair, so that the jobs of each share come in turn."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from jobvisor.supervisor.web.access import Who, writing
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.api.forms import Sharing
from jobvisor.supervisor.web.api.openapi import answer, refusals
from jobvisor.supervisor.web.api.pauses import QueuePath
from jobvisor.supervisor.web.api.query import exact_query
from jobvisor.supervisor.web.site import Here

router = APIRouter(prefix="/api/v1", tags=["queues"], dependencies=[Depends(exact_query)])


@router.put(
    "/queues/{queue}/fair",
    operation_id="set_fair",
    response_model=documents.Fair,
    dependencies=[Depends(writing)],
    responses=refusals(422),
)
def set_fair(site: Here, who: Who, queue: QueuePath, body: Sharing) -> Response:
    """Serve the shares of a queue in turn from now on, or no more, in all families."""
    with site.client.transaction():
        changed = site.client.set_fair(queue, body.fair)
        if changed:
            site.client.note_action(who, "fair", f"queue {queue} {'on' if body.fair else 'off'}")
    return answer({"queue": queue, "fair": body.fair, "changed": changed})
