"""A Hub on loopback: the HTTP routes that the unmodified Hugging Face libraries use.

`HubServer` serves model and dataset repositories from memory. Branches, pull requests, private
repositories, large files and requests that fail half-way behave as on the real Hub. Clients
are pointed at it with `HF_ENDPOINT` and, for large files, `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from hub_routes import HubHandler, Repository


@dataclass
class Failure:
    """How requests of a route fail: with a status, or with a connection that breaks off."""

    status: int | None
    after: int = 0  # so many requests still go well
    is_over: bool = False


class HubServer:
    """The server, in threads of this process; use it in a `with` statement."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[tuple[str, str], bytes] = {}  # by repository and hash
        self.requests: list[str] = []
        self.unknown_requests: list[str] = []
        self.lock = threading.RLock()
        self._failures: dict[tuple[str, str], Failure] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Value for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def model(self, repo_id: str) -> Repository:
        """A model repository that exists."""
        return self.repositories["model", repo_id]

    def dataset(self, repo_id: str) -> Repository:
        """A dataset repository that exists."""
        return self.repositories["dataset", repo_id]

    def fail(self, route: str, repo_id: str, status: int | None = None, after: int = 0) -> None:
        """Lets one request of a route fail.

        Args:
            route (`str`): "preupload", "lfs", "commit" or another of `ROUTES` with a repository.
            repo_id (`str`): the repository that it is about.
            status (`int`, *optional*): HTTP status; without one the connection breaks off when half
                of the request has been read.
            after (`int`): so many requests go well before.
        """
        self._failures[route, repo_id] = Failure(status, after)

    def take_failure(self, route: str, repo_id: str | None) -> Failure | None:
        """The failure that a request is to meet, if any."""
        with self.lock:
            failure = self._failures.get((route, repo_id or ""))
            if failure is None or failure.is_over:
                return None
            failure.after -= 1
            failure.is_over = failure.after < 0
            return failure if failure.is_over else None
