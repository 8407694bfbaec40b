"""A web server for the webhooks example: each path has a temper of its own. Prints what it took, and how."""

import http.server
import json
from collections import Counter

seen: Counter[str] = Counter()


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen[self.path] += 1
        again = seen[self.path] > 1
        print(
            f"{self.path} {event['number']} {self.headers['Idempotency-Key']} {self.headers['Content-Length']}", flush=True
        )
        if self.path == "/busy" and not again:
            self.send_response(429)
            self.send_header("Retry-After", "0.2")
        else:
            self.send_response({"/flaky": 204 if again else 503, "/broken": 500, "/gone": 404}.get(self.path, 200))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
server.daemon_threads = True
print(f"HTTP on port {server.server_address[1]}", flush=True)
server.serve_forever()
