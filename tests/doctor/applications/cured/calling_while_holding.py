"""Calls another service after it has given its connection back."""

import os
import socket
import threading
import urllib.request

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


slow = socket.create_server(("127.0.0.1", 0), backlog=1000)


def answer():
    while True:
        client, _ = slow.accept()
        client.recv(10_000)
        threading.Timer(
            0.1, lambda client=client: (client.sendall(b"HTTP/1.0 200 OK\r\n\r\nok"), client.close())
        ).start()


@app.get("/question")
def question():
    if not started:
        started.append(threading.Thread(target=answer, daemon=True))
        started[0].start()
    with engine.connect() as connection:
        name = connection.execute(text("SELECT name FROM authors WHERE id = 1")).scalar()
    with urllib.request.urlopen(f"http://127.0.0.1:{slow.getsockname()[1]}/") as other:
        return jsonify(name + other.read().decode())


started = []
