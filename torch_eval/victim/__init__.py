"""The attacked model: a fast, exact classifier, and the calibration of its confidence."""
