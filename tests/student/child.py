"""One of several processes that train together: ``python -m tests.student.child STAGE PICKLE [LAST STEP]``."""

import json
import os
import pickle
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from cxr_max.student.critique import train_apo
from cxr_max.student.sft import train_sft


def main(stage: str, path: str, last: str = "") -> None:
    torch.set_num_threads(1)

    def watch(what: str, done: int, total: int) -> None:
        print(what, done, total, flush=True)
        if what == "Training" and str(done) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train = train_sft if stage == "sft" else train_apo
    done = train(*pickle.loads(Path(path).read_bytes()), data="d", watch=watch)
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main(*sys.argv[1:])
