"""Pools on a local file or block device: page tables whose leaves images share."""
