"""Writes rows with a statement and a commit each."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import BigInteger, Identity, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"], pool_size=8, max_overflow=0, pool_timeout=3)
app = application(engine)


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[int]
    body: Mapped[str]


@app.get("/question")
def question():
    with Session(engine) as session:
        for kind in range(25):
            session.add(Event(kind=kind, body="read"))
            session.commit()  # sick
    return jsonify("done")
