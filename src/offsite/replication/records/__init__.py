"""Replication's records in the state database, and who may change them when."""
