"""A stand-in for the hub's HTTP interface, for the real client to talk to.

* :func:`serve_hub` -- a hub on this machine while a context lasts.
* :class:`Hub` -- what it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """Repositories by id, each its files by path.

    Attributes:
        repositories: What is committed; a dataset's id begins with ``datasets/``.
        sizes: Sizes that it claims for files, by id and path, in place of the true ones.
        fetched: Paths of the files that were downloaded.
        private: Ids of private repositories.
        tokens: Who may write.
        url: Its address.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    tokens: tuple[str, ...] = ("hf_secret",)
    url: str = ""
    uploads: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes, authorization: str) -> Any:
        """JSON, bytes of a file, or a status."""
        writes = method == "POST" and path != "/api/validate-yaml"
        if writes and authorization.removeprefix("Bearer ") not in self.tokens:
            return 401
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            wanted = json.loads(body)
            kind = "datasets/" if wanted.get("type") == "dataset" else ""
            name = f"{kind}{wanted['organization']}/{wanted['name']}"
            self.repositories.setdefault(name, {})
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.private.add(name)
            return {"url": f"{self.url}/{name}"}
        if match := re.fullmatch("/upload/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self.uploads[match[1]] = body
            return {}
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.url}/upload/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return {"transfer": "basic", "objects": objects}
        if path == "/api/datasets":
            return [{"id": name[9:]} for name in self.repositories if name.startswith("datasets/")]
        if match := re.fullmatch(r"/api/(?:models/|(datasets/))([^/]+/[^/]+)(/.*)?", path):
            return self._repository((match[1] or "") + match[2], match[3] or "", body)
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.repositories.get(match[1], {}).get(match[2])
            if method == "GET" and content is not None:
                self.fetched.append(match[2])
            return 404 if content is None else content
        return 404

    def _repository(self, name: str, rest: str, body: bytes) -> Any:
        files = self.repositories.get(name)
        if files is None:
            return 404
        if rest.startswith("/preupload/"):
            return {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": "regular"
                        if each["path"].endswith((".json", ".md"))
                        else "lfs",
                        "shouldIgnore": False,
                    }
                    for each in json.loads(body)["files"]
                ]
            }
        if rest.startswith("/commit/"):
            for line in body.splitlines():
                change = json.loads(line)
                value = change["value"]
                if change["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif change["key"] == "lfsFile":
                    files[value["path"]] = self.uploads[value["oid"]]
                elif change["key"] == "deletedFile":
                    del files[value["path"]]
            return {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        sizes = {
            path: self.sizes.get(f"{name}/{path}", len(content)) for path, content in files.items()
        }
        if rest.startswith(("/tree/", "/paths-info/")):
            return [
                {"type": "file", "path": path, "size": size, "oid": path}
                for path, size in sizes.items()
            ]
        siblings = [{"rfilename": path, "size": size} for path, size in sizes.items()]
        return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub at ``hub.url``."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            authorization = self.headers.get("Authorization", "")
            answer = hub.answer(self.command, path, body, authorization)
            status = answer if isinstance(answer, int) else 200
            said = {"error": f"status {status}"} if isinstance(answer, int) else answer
            content = answer if isinstance(answer, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if status == 404:
                code = "RepoNotFound" if path.startswith("/api/") else "EntryNotFound"
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _handle

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
