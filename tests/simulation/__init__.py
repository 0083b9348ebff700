"""Two whole systems in one process, on a clock, a network and disks of our own: everything follows from one seed.

    world.py      one life: two systems, their hosts and users, chaos; then quiet, in which all has to come right
    liar.py       one life in which one of the systems lies, and what must hold of the other one
    faults.py     how often what goes wrong, drawn by the seed
    machine.py    a system: real database, pool, replication, schedules and commands; it may lose power at any commit
    pool.py       its database and pool, which tell the shadow what they are asked
    hosts.py      what hosts do to volumes                commands.py   what users do
    shadow.py     what each image has to hold, kept beside the real pool           checks.py   the invariants
    tasks.py      tasks that take turns: one runs at a time, the seed says who is next; the clock jumps
    disk.py       the data file: what is not synced may be lost, reads and writes may fail
    network.py    connections: delayed, cut, stalled, with the real frames, sessions and dialer at both ends
    patching.py   gives the product's modules our threads, clock, disk and uuids
    mutants.py    the product broken on purpose, once for each invariant

The product's code is what runs: planner, state machines, codec, driver, dispatcher, reconciler, commands, page tables
and SQLite. Not simulated are TLS and the NBD target. A seed replays exactly:

    python -m tests.simulation 4711           one seed, with its trace
    python -m tests.simulation --count 1000   so many seeds, on all cores
    python -m tests.simulation --lies 4711    the same seed, and one of the systems lies; also with --count
    python -m tests.simulation --soak         until stopped

Simulations run in processes of their own, for they change the modules of the product.
"""
