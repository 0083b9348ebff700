"""Which end of a set is primary, and since which change of roles."""
