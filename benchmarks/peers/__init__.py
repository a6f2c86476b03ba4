"""Training and inference beside other libraries, each in a process of its own. Run: python -m benchmarks.peers

How a run is made fair:

- Every competitor builds the same network from the same starting weights, and gets the same float32 batches, which
  already lie in its memory. Each hands them to its library the way that library likes best. A training step ends when
  its loss is there as a Python number; an inference call ends when the logits are there.
- The losses of the first steps are compared with those of our NumPy backend: whoever computes something else shows.
- All workers of a case are alive at once. In every round each gets one turn, in random order, with the others frozen.
  A turn opens with untimed steps. So every ratio compares two turns that lie seconds apart on the same machine.
- Every competitor gets all threads, and its own best settings as variants of its own. None is compared by its default
  alone.

`variants` lists the competitors, `workers` holds one module for each library, `networks` what they compute, `worker`
the child's side of the protocol and `measure` the parent's.
"""
