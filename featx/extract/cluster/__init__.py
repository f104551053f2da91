"""Stage one on a Ray cluster: the same features, in the same store, computed by many machines.

Each machine sees the images and the cache under the same path, in a shared folder. Workers, one for each GPU or for a
few cores, read images and write their own segments into the store, as several processes of featx do anyway. Ray tells
them which images; no features travel through Ray. So if a worker is lost, only what it had not written is lost. The
next run, on a cluster or not, computes what is missing.

    this process              run.py        bar, log, Ctrl-C; a mark in the store
       │ pipe
    the driver                driver.py     a process of its own that talks to Ray
                              scheduler.py  gives tasks, some rows each, to workers, and again if a worker is lost
       │ Ray
    a worker per GPU or       worker.py     checks what it sees; reader → engine → writer, as on one machine
    few cores, on each node

Plain actors, not `ray.data`: that needs pyarrow and pandas, and is made to move what it computes through Ray's object
store, while here nothing is moved.

The driver is a process of its own because of what Ray does in it: it prints to standard output, takes SIGTERM for
itself, tries an address for two minutes, and ends the process when the cluster has gone.
"""

from featx.extract.cluster.run import run_on_cluster
