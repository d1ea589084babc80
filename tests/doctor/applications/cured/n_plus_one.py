"""Fetches posts and their authors by two statements."""

import os

from flask import jsonify
from ordinary import application
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

engine = create_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=0, pool_timeout=3)
app = application(engine)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    body: Mapped[str]
    author: Mapped[Author] = relationship()


@app.get("/question")
def question():
    with Session(engine) as session:
        posts = session.scalars(select(Post).options(selectinload(Post.author)).order_by(Post.id).limit(40))
        return jsonify([post.author.name for post in posts])
