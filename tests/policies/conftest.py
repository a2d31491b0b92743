"""One torch thread, so that tests run side by side; helpers importable by name; Ctrl-C works."""

import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background, where POSIX ignores it; what a test starts and stops inherits that
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parent))
