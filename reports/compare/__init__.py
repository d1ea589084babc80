"""Two sets of reports beside each other: differences, their statistics, and gates."""
