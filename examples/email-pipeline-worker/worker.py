#!/usr/bin/env python3
"""The email pipeline as plain HTTP workers, with nothing but Python's standard library.

    python3 worker.py [PORT]

Beside it, `leat dispatch` calls these workers (see dispatcher.toml), and one task starts it all:

    curl -d '{}' http://127.0.0.1:2000/tasks/email-pipeline-start/submit
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USERS = [
    {"name": "Ada", "email": "ada@example.com"},
    {"name": "Grace", "email": "grace@example.com"},
    {"name": "Edsger", "email": "edsger@example.com"},
]


def start(task):
    return [("fetch-users", {})]


def fetch_users(task):
    return [("generate-email", {"user": user}) for user in USERS]


def generate_email(task):
    user = task["user"]
    return [("send-email", {"to": user["email"], "text": f"Dear {user['name']},\nthis is your mail.\n"})]


def send_email(task):
    # Here the mail would leave. The same message may come again after a crash, with the same leat-message-id.
    return [("record-sent", {"to": task["to"]})]


def record_sent(task):
    return []


WORKERS = {
    "email-pipeline-start": start,
    "fetch-users": fetch_users,
    "generate-email": generate_email,
    "send-email": send_email,
    "record-sent": record_sent,
}


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small answers on a kept connection must not wait for the caller's acknowledgement of the one before.
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        worker = WORKERS.get(self.path.strip("/"))
        if worker is None:
            return self.answer(404, {"error": "there is no such worker"})
        try:
            tasks = worker(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            # No other attempt would end better.
            return self.answer(422, {"error": f"not a task for this worker: {error!r}"})
        self.answer(200, {"tasks": [{"type": kind, "task": task} for kind, task in tasks]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        print(self.path.strip("/"), self.headers.get("leat-message-id"), flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    server = ThreadingHTTPServer(("127.0.0.1", port), Worker)
    print(f"workers on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
