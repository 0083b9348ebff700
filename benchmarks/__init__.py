"""Offsite beside its peers: the same data, the same settings, the same machine, in the same run."""
