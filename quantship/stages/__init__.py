"""Stages of a run, one a file: ``run(job)`` reads input directories and writes one."""
