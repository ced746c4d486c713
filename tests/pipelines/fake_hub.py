"""A stand-in for the Hub on loopback: repositories are dictionaries, uploads are commits, downloads are what was committed.

`python fake_hub.py` prints its port and serves until it is killed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

REPOSITORIES: dict[str, dict[str, bytes]] = {}
SHA = "a" * 40


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code: int, body: bytes | dict | list = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        # Uploads may be sent in chunks, without a length.
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().strip(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            request = json.loads(body)
            name = "/".join(filter(None, [request.get("organization") or "me", request["name"]]))
            REPOSITORIES.setdefault(name, {})
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        if parts == ["api", "validate-yaml"]:  # of the model card
            return self.answer(200, {"errors": [], "warnings": []})
        name, action = "/".join(parts[2:4]), parts[4]
        if action == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]}
            )
        if action == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    REPOSITORIES[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self.answer(200, {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{SHA}", "commitOid": SHA, "success": True})
        return self.answer(404)

    def do_GET(self):
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in REPOSITORIES:
                return self.answer(404, {}, X_Error_Code="RepoNotFound")
            files = REPOSITORIES[name]
            if "tree" in parts:
                return self.answer(
                    200, [{"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()} for f, b in files.items()]
                )
            siblings = [{"rfilename": f} for f in files]
            return self.answer(
                200, {"_id": "1", "id": name, "modelId": name, "sha": SHA, "private": False, "tags": [], "siblings": siblings}
            )
        if "resolve" in parts:
            content = REPOSITORIES.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if content is None:
                return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=SHA)
            return self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=SHA)
        return self.answer(404, {}, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 (the base class's name)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()
