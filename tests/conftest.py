"""Settings of every test: one thread, so that numbers and times do not depend on the machine's cores."""

import os

# Before anything imports torch; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
