"""The members of a champion at work: batches, replicas, and the processes that they run in."""
