"""Asynchronous mail, part 2: sends what is in the queue. Start as many as you like.

python worker.py SMTP_HOST SMTP_PORT [tcp://host:port] [RETRY_S]

the mail server takes it            done
it says 4xx, or is not there        again after RETRY_S, twice as long each time; after three tries a dead letter
it says 5xx                         a dead letter with its words: `manyhands dead list mail`
this process dies                   another worker sends it; the Message-ID tells if the server had it already
"""

import email
import queue
import smtplib
import sys

import manyhands as mh

host, port = sys.argv[1], int(sys.argv[2])
retry_s = float(sys.argv[4]) if sys.argv[4:] else 60.0

with mh.connect(*sys.argv[3:4]) as client:
    mails = client.queue("mail")
    print("ready", flush=True)
    while True:
        try:
            with mails.receive(timeout=3600) as delivery:
                mail = email.message_from_bytes(delivery.value)
                mail["Message-ID"] = f"<{delivery.id.replace(' ', '.').replace('@', '.')}@example.org>"
                pause_s = retry_s * 2 ** (delivery.attempt - 1)
                try:
                    with smtplib.SMTP(host, port, timeout=30) as smtp:
                        smtp.send_message(mail)
                    print(f"sent to {mail['To']}", flush=True)
                except smtplib.SMTPRecipientsRefused as refusal:
                    (code, words), *_ = refusal.recipients.values()
                    reason = f"{code} {words.decode(errors='replace')}"
                    if code < 500:
                        delivery.nack(delay_s=pause_s, reason=reason)
                        print(f"later to {mail['To']}: {reason}", flush=True)
                    else:
                        delivery.reject(reason)
                        print(f"never to {mail['To']}: {reason}", flush=True)
                except OSError as error:  # every other answer of the mail server, and its absence
                    delivery.nack(delay_s=pause_s, reason=str(error))
                    print(f"later to {mail['To']}: {error}", flush=True)
        except (mh.ShutDown, queue.Empty):
            break
print("worker exit.", flush=True)
