"""A small Hugging Face Hub: repositories in memory behind the parts of its HTTP interface that its library calls."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

COMMIT = "{:040x}".format


class Hub:
    """repositories: {owner/name: [{file: bytes} of each commit]}; damage: {file: what is sent in its place}."""

    def __init__(self):
        self.repositories, self.private, self.damage, self.asked = {}, {}, {}, []

    def files(self, repository, revision="main"):
        """(number of the commit, its files); KeyError where there is none."""
        commits = self.repositories[repository]
        number = len(commits) - 1 if revision == "main" else int(revision.removeprefix("v"), 16)
        if not 0 <= number < len(commits):
            raise KeyError(revision)
        return number, commits[number]


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def described(name, data):
    entry = {"rfilename": name, "path": name, "type": "file", "size": len(data), "blobId": git_hash(data)}
    entry["oid"] = entry["blobId"]
    if name.endswith(".safetensors"):
        sha = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha, "oid": sha, "size": len(data), "pointerSize": 130}
    return entry


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.answer({"error": code}, status, X_Error_Code=code)

    def handle_all(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append((self.command, path))
        try:
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|revision|preupload|commit)/(.+))?", path):
                self.model(*match.groups(), body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.file(*match.groups())
            elif path == "/api/repos/create":
                wanted = json.loads(body)
                repository = f"{wanted['organization']}/{wanted['name']}"
                self.hub.repositories.setdefault(repository, [{}])
                self.hub.private.setdefault(repository, wanted.get("visibility") == "private")
                self.answer({"url": f"http://{self.headers['Host']}/{repository}"})
            else:
                self.answer({"errors": [], "warnings": []})
        except KeyError as error:
            self.refuse(404, "RevisionNotFound" if "/" not in str(error) else "RepoNotFound")

    do_GET = do_HEAD = do_POST = handle_all

    def model(self, repository, part, revision, body):
        number, files = self.hub.files(repository, revision if part in ("tree", "revision") and revision else "main")
        listed = [described(name, data) for name, data in files.items()]
        if part == "tree":
            self.answer(listed)
        elif part == "preupload":
            self.answer(
                {"files": [f | {"uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]}
            )
        elif part == "commit":
            if "Bearer hf_right" not in self.headers.get("Authorization", ""):
                return self.refuse(403, "Forbidden")
            self.hub.repositories[repository].append(changed(files, body))
            url = f"http://{self.headers['Host']}/{repository}/commit/{COMMIT(number + 1)}"
            self.answer({"commitOid": COMMIT(number + 1), "commitUrl": url, "success": True})
        else:
            self.answer({"id": repository, "sha": COMMIT(number), "siblings": listed})

    def file(self, repository, revision, name):
        number, files = self.hub.files(repository, revision)
        known = described(name, files[name])
        sent = self.hub.damage.get(name, files[name])
        self.answer(sent, ETag=f'"{known.get("lfs", known)["oid"]}"', X_Repo_Commit=COMMIT(number))

    def log_message(self, *arguments):
        pass


def changed(files, body):
    """The files after a commit, whose lines are its header, files and deletions."""
    files = dict(files)
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "deletedFile":
            del files[line["value"]["path"]]
    return files


@contextlib.contextmanager
def serving():
    """(a `Hub`, its address) while it is served."""
    hub = Hub()
    handler = type("OfHub", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield hub, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
