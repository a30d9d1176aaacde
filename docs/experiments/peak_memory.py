"""Peak memory of each stage, as a command of its own.

`python peak_memory.py SECATEUR MODEL DATA SIDE BATCH [PREPROCESS [STAGES]]`: one table row a stage, with the
peak of the resident memory of its process and that over the size of the model's file; of `STAGES`, a regular
expression, where it is given. `DATA` has labelled images, of which 128 are used for training and 64 for
statistics; all that are left for testing are tested on, so a few hundred images in all are enough. Linux only.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measured(arguments):
    """Exit status, peak resident memory in bytes, seconds, last line of stderr."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines()
    return child.returncode, 1024 * usage.ru_maxrss, time.perf_counter() - start, (lines or [""])[-1]


def main():
    secateur, model, data, side, batch = sys.argv[1:6]
    preprocess = sys.argv[6] if len(sys.argv) > 6 else "imagenet"
    wanted = re.compile(sys.argv[7] if len(sys.argv) > 7 else "")
    size = Path(model).stat().st_size
    print(f"{Path(model).name}: {size / 1e6:.0f} MB, images of {side}x{side}, batch {batch}\n")
    print("| stage | peak MB | times the file | seconds |\n| --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        ready, factored, pruned, folded = (Path(folder) / f"{name}.onnx" for name in ("ready", "factored", "pruned", "folded"))
        image = ["--size", f"{side}x{side}"]
        images = ["--data", data, "--preprocess", preprocess, *image, "--limit", 128, "--batch-size", batch]
        quick = ["--recovery-epochs", 0, "--finetune-epochs", 0, "--statistics-images", 64, "--refit-images", 64]
        stages = [
            ("inspect", ["inspect", model, *image]),
            ("transfer, features and head", ["transfer", model, "-o", ready, *images, "--head", "new", "--epochs", 0]),
            ("transfer, one pass for all weights", ["transfer", model, "-o", Path(folder) / "all.onnx", *images, "--head", "new", "--transfer", "all", "--epochs", 1]),
            ("decompose", ["decompose", ready, "-o", factored]),
            ("prune: statistics and one cut", ["prune", factored, "-o", pruned, *images, "--target", "params=70%", "--statistics-images", 64]),
            ("fold", ["fold", pruned, "-o", folded]),
            ("verify", ["verify", ready, folded, *images]),
            ("evaluate", ["evaluate", folded, *images]),
            ("bench", ["bench", ready, folded, *image]),
            ("compress, all of it, directions", ["compress", ready, "-o", Path(folder) / "small.onnx", *images, *quick, "--target", "params=60%"]),
            ("compress, all of it, channels", ["compress", ready, "-o", Path(folder) / "less.onnx", *images, *quick, "--remove", "channels", "--target", "params=60%"]),
        ]
        for stage, arguments in stages:
            if not wanted.search(stage):
                continue
            status, peak, seconds, said = measured([secateur, *arguments])
            wrong = "" if status in (0, 1) else f" ({said})"
            print(f"| {stage}{wrong} | {peak / 1e6:,.0f} | {peak / size:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
