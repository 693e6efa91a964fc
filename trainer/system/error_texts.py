"""English texts of errors of torch, Python and OmegaConf that have no class of their own.

Checked on torch 2.14.1, Python 3.11 and omegaconf 2.3.1;
`tests/trainer/system/test_error_texts.py` brings each about. If a text goes, the
error it stands for ends in a traceback, or in a message that says less.
"""

from __future__ import annotations

NO_CPU_MEMORY = "can't allocate memory"  # torch, RuntimeError of its allocator
# torch, of sizes that it cannot have, or cannot even count.
BEYOND_MEMORY = (
    NO_CPU_MEMORY, "Storage size calculation overflowed", "Overflow when unpacking long",
)  # fmt: skip
OVERFLOW = "without overflow"  # torch, RuntimeError of a factor that its dtype cannot hold
UNRECOGNIZED = "unrecognized arguments"  # argparse
UNKNOWN_KEY = ("not in struct", "not in '")  # OmegaConf
