"""The tests: the same tree as the product, whole-system tests in folders of their own, and what they share in `support`."""
