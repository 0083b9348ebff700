"""Runs of this system's primary sets: asked for, prepared, started, retried, ended."""
