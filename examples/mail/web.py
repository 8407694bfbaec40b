"""Asynchronous mail, part 1: a web application that answers at once and leaves the mail to a queue.

    python web.py [HTTP_PORT] [tcp://host:port]

POST /signup with an address in its body. The answer 202 is sent when the mail is in the queue's file, which survives a
crash; no visitor waits for a mail server. The queue is served from a thread of this program: start workers against it.
"""

import http.server
import sys
import threading
from email.message import EmailMessage

import manyhands as mh

server = mh.serve(*sys.argv[2:3], store="sqlite:///mail.db")
mails = server.queue("mail", maxsize=10_000)


class Signup(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        address = self.rfile.read(int(self.headers["Content-Length"])).decode()
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "hello@example.org", address, "Welcome"
        mail.set_content("Good to have you here.")
        mails.put(mail.as_bytes(), id=f"welcome {address}")  # two clicks are one mail
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


web = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8080), Signup)
threading.Thread(target=web.serve_forever, daemon=True).start()
print(f"Web at http://127.0.0.1:{web.server_address[1]} and queue at {server.url}", flush=True)
sys.stdin.read()  # until the program's input ends (Ctrl-D), or Ctrl-C
mails.shutdown()  # no more mails; workers send the rest and end
print(f"{mails.qsize()} mails wait in mail.db", flush=True)
server.stop()
