"""Lends database connections and says what each loan cost; knows no HTTP."""
