"""Appends events without end, and prints the number of each that is acknowledged.

``python writer.py URL SHARED OWN``: the first one to a participant whom others write to as well,
and says who was first; the others to a participant of its own.
"""

import sys
from itertools import count

from pcr_jax.frontends.store.store import Conflict, Store

store = Store.open(sys.argv[1])
shared, own = map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
try:
    store.append(shared, 0, "consented", {"by": own})
    print("first", flush=True)
except Conflict:
    print("second", flush=True)
for seq in count():
    store.append(own, seq, "answered", {"number": seq, "typed": {"income": "4,100 €"}})
    print(seq, flush=True)
