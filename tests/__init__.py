"""Tests: a folder for each package, `helpers` for what they share, and runs from end to end."""
