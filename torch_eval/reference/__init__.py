"""The official code: our restatement, a driver of a checkout, and the comparison of both with this project."""
