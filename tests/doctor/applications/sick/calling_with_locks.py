"""Calls another service between a change that all requests make and its commit."""

import os
import socket
import threading

from flask import jsonify
from ordinary import application
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

engine = create_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0, pool_timeout=10)
app = application(engine)
stock = socket.create_server(("127.0.0.1", 0), backlog=1000)


def answer():
    while True:
        client, _ = stock.accept()
        threading.Timer(0.03, client.close).start()


def reserve():
    with socket.create_connection(stock.getsockname()) as asked:
        return asked.recv(100)  # sick


@app.get("/question")
def question():
    if not started:
        started.append(threading.Thread(target=answer, daemon=True))
        started[0].start()
    with Session(engine) as session:
        session.execute(text("UPDATE counters SET n = n + 1 WHERE id = 1"))
        reserve()
        session.commit()
    return jsonify(True)


started = []
