"""What a customer owes."""

from sqlalchemy import func, select

from db import Bill


def of_customer(session, customer):
    number, cents = session.execute(
        select(func.count(), func.coalesce(func.sum(Bill.cents), 0)).where(Bill.customer == customer)
    ).one()
    return {"customer": customer, "bills": number, "cents": int(cents)}
