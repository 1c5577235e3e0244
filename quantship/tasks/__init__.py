"""Evaluations, one a file, on any runtime."""
