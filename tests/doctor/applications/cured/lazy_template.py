"""Its template gets the posts with their authors."""

import os

from flask import render_template
from flask_sqlalchemy import SQLAlchemy
from ordinary import application
from sqlalchemy import create_engine
from sqlalchemy.orm import joinedload

app = application(create_engine(os.environ["DATABASE_URL"], pool_size=10))
app.template_folder = "cured/templates"
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 10}
db = SQLAlchemy(app)


class Author(db.Model):
    __tablename__ = "authors"
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.Text)


class Post(db.Model):
    __tablename__ = "posts"
    id = db.Column(db.Integer, primary_key=True)
    author_id = db.Column(db.ForeignKey("authors.id"))
    author = db.relationship(Author)


@app.get("/question")
def question():
    posts = db.session.scalars(db.select(Post).options(joinedload(Post.author)).order_by(Post.id).limit(40)).all()
    return render_template("posts.html", posts=posts)
