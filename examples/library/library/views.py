"""What readers do: log in, look for books, borrow one."""

from flask import Blueprint, jsonify, render_template, request
from flask_login import current_user, login_required, login_user
from sqlalchemy import select
from werkzeug.security import check_password_hash

from library.models import Book, Loan, User, db

pages = Blueprint("pages", __name__)


@pages.get("/")
def home():
    return "a library\n"


@pages.post("/login")
def log_in():
    user = db.session.scalar(select(User).filter_by(name=request.json["name"]))
    if user is None or not check_password_hash(user.password, request.json["password"]):
        return jsonify(error="wrong name or password"), 401
    login_user(user)
    return jsonify(name=user.name)


@pages.get("/books/<int:number>")
@login_required
def book(number):
    found = db.get_or_404(Book, number)
    loans = db.session.scalars(select(Loan).filter_by(book_id=number).order_by(Loan.id.desc()).limit(20)).all()
    return render_template("book.html", book=found, loans=loans)


@pages.post("/loans")
@login_required
def borrow():
    loan = Loan(user_id=current_user.id, book_id=int(request.json["book"]))
    db.session.add(loan)
    db.session.commit()
    return jsonify(id=loan.id), 201
