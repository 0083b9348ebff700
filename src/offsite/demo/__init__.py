"""`offsite demo`: two systems on this machine, and a volume that replicates itself from one to the other."""
