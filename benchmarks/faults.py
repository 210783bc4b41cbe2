"""What a run survives: kill -9, a full disk, photos that cannot be read, Ctrl-C. One row a case.

    python benchmarks/faults.py --json faults.json

Generated scenes, a small untrained network, all stages, one worker that decodes. Processes are forked from this one
after its imports, or with `--cold` started anew, and stopped after random amounts of their own processor time. After
every stop the run folder is looked through: whatever has its final name must load. The same command then goes on, and
what it ends with must be what an undisturbed run ends with: the same metrics, masks byte by byte. The full disk is a
small tmpfs for root, and otherwise a limit on the size of files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tag2mask import cli  # the imports of a run, before it is forked
from tag2mask.data import read_mask
from tag2mask.demo.scenes import write_scenes
from tag2mask.runs.lock import LOCK
from tag2mask.runs.stages import STAGES

RECIPE = {
    "name": "faults",
    "workers": 1,
    "backbone": {"name": "resnet10t", "weights": "random"},
    "classifier": {"size": 64, "epochs": 20},
    "patterns": {"size": 64, "components": 5},
    "segmenter": {"size": 64, "epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "crop": 0.5, "label_stride": 2},
    "inference": {"scales": [64], "crf": None},
}
UNFINISHED = re.compile(r"\.tag2mask-[0-9a-f]+-\d+\.tmp")
"""What a file that is being written is called."""
TICK = os.sysconf("SC_CLK_TCK")
FORK = multiprocessing.get_context("fork")


class Started:
    """The command line in a process and a session of its own; what it says goes to a file."""

    def __init__(self, arguments, said, cold=False, largest=None):
        self.said = said
        if cold:
            command = [sys.executable, "-m", "tag2mask", *map(str, arguments)]
            with said.open("wb") as file:
                self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
            self.wait = self.process.wait
        else:
            self.process = FORK.Process(target=called, args=(arguments, said, largest))
            self.process.start()
            self.wait = self.joined
        self.pid = self.process.pid

    def joined(self):
        self.process.join()
        return self.process.exitcode

    def stop(self, number, after):
        """Send a signal to the session after so many of the process's seconds; return whether it still ran."""
        while (seconds := seconds_of(self.pid)) < after:
            time.sleep(0.005)
        if seconds is gone:
            return False
        if number == signal.SIGKILL:
            os.kill(self.pid, number)
        else:
            os.killpg(self.pid, number)  # as a terminal does
        return True

    def left_alone(self):
        """Return the processes of the session that outlive it by ten seconds, and end them."""
        deadline = time.monotonic() + 10
        while (found := in_session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)


gone = float("inf")


def called(arguments, said, largest):
    """The forked process: what a shell would start."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["tag2mask", *map(str, arguments)]
    cli.main()


def fields_of(pid):
    """Return what /proc/PID/stat says from the state on; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields


def seconds_of(pid):
    """Return a process's processor seconds."""
    fields = fields_of(pid)
    return gone if fields is None else (int(fields[11]) + int(fields[12])) / TICK


def in_session(session):
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in numbers if (fields := fields_of(pid)) and int(fields[3]) == session]


def corrupt(folder):
    """Return the files with a final name that do not load."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not UNFINISHED.fullmatch(path.name)):
        try:
            check(file)
        except Exception as error:
            found.append(f"{file.relative_to(folder)}: {error}")
    return found


def check(file):
    """Load a file of a run folder; raises whatever its reader does."""
    if file.suffix == ".png" and file.parent.name in ("proxy", "retrain", "predictions"):
        read_mask(file)
    elif file.suffix in (".png", ".jpg"):
        Image.open(file).load()
    elif file.suffix == ".safetensors":
        load_file(file)
    elif file.suffix == ".pt":
        torch.load(file, weights_only=True)
    elif file.suffix == ".json":
        json.loads(file.read_text())
    elif file.suffix == ".yaml":
        yaml.safe_load(file.read_text())["recipe"]
    elif file.suffix == ".html":
        if not file.read_text().rstrip().endswith("</html>"):
            raise ValueError("no </html>")
    elif file.name != LOCK:
        raise ValueError("what is this?")


def result(folder):
    """Return what a finished run is compared by: its scores and the bytes of its masks."""
    scores = json.loads((folder / "metrics.json").read_text())
    del scores["seconds"]
    masks = {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("[pr]*/**/*.png")}
    return scores, {name: content for name, content in masks.items() if not name.startswith("report/")}


def left_behind(folder):
    return [file.name for file in folder.rglob(".*") if file.is_file() and file.name != LOCK]


class Trial:
    """A place for the runs of one case, and what an undisturbed run is."""

    def __init__(self, root, scenes, recipe, cold, random):
        self.root, self.scenes, self.recipe, self.cold, self.random = root, scenes, recipe, cold, random
        self.faults = []
        self.seconds, self.expected = 0.0, None

    def start(self, out, largest=None, scenes=None, cold=None):
        arguments = ["run", scenes or self.scenes, "--out", out, "--recipe", self.recipe]
        arguments += ["--split", "train", "--eval-split", "val"]
        return Started(arguments, self.root / "said.txt", self.cold if cold is None else cold, largest)

    def undisturbed(self):
        out = self.root / "undisturbed"
        started = self.start(out)
        pid = started.pid
        while (seconds := seconds_of(pid)) is not gone:
            self.seconds = seconds
            time.sleep(0.01)
        self.expect(started.wait() == 0, f"the undisturbed run failed: {started.said.read_text()[-500:]}")
        self.expected = result(out)
        self.expect(not left_behind(out), f"left behind: {left_behind(out)}")

    def expect(self, holds, what):
        if not holds:
            self.faults.append(what)
            print(f"FAULT: {what}", file=sys.stderr, flush=True)

    def finish(self, out):
        """Let the same command go on to the end, and compare."""
        started = self.start(out)
        self.expect(started.wait() == 0, f"{out.name} did not go on: {started.said.read_text()[-500:]}")
        self.expect(not corrupt(out), f"corrupt at the end: {corrupt(out)}")
        self.expect((out / "metrics.json").exists() and result(out) == self.expected, f"{out.name} ends otherwise")
        self.expect(not left_behind(out), f"left behind: {left_behind(out)}")

    def folder(self, name):
        return self.root / name


def killed(trial, times):
    """kill -9 at random moments, each attempt going on where the one before was killed."""
    number, stops, stages = 0, 0, Counter()
    while stops < times:
        out = trial.folder(f"killed-{number}")
        started = trial.start(out)
        stopped = started.stop(signal.SIGKILL, trial.random.uniform(0, trial.seconds))
        started.wait()
        trial.expect(not started.left_alone(), "processes outlive a killed run")
        if stopped:
            stops += 1
            stages[stage_of(started.said.read_text())] += 1
        if out.exists():
            trial.expect(not corrupt(out), f"corrupt after kill -9: {corrupt(out)}")
        if not stopped:  # it came to its end first
            trial.finish(out)
            number += 1
    trial.finish(out)
    hit = ", ".join(f"{stage} {stages[stage]}" for stage in ("before", *STAGES) if stages[stage])
    return f"{times} kills at random moments ({hit}), {number + 1} runs"


def stage_of(said):
    """Return the last stage that a run has begun."""
    return next((stage for stage in reversed(STAGES) if f"  {stage}: " in said), "before")


def interrupted(trial, times):
    """Ctrl-C at random moments of runs of their own."""
    stops = 0
    for number in range(10 * times):
        out = trial.folder(f"interrupted-{number}")
        started = trial.start(out)
        stopped = started.stop(signal.SIGINT, trial.random.uniform(0.02, trial.seconds))
        code, said = started.wait(), started.said.read_text()
        trial.expect(not started.left_alone(), "processes outlive Ctrl-C")
        if stopped and code:  # not in the last moment, after all is done
            stops += 1
            lines = [line for line in said.splitlines() if line.startswith("tag2mask: ")]
            trial.expect(code == 130, f"exit code {code} after Ctrl-C: {said[-800:]}")
            trial.expect(len(lines) == 1 and "Traceback" not in said, f"Ctrl-C says: {said[-1500:]}")
        if out.exists():
            trial.expect(not corrupt(out), f"corrupt after Ctrl-C: {corrupt(out)}")
        trial.finish(out)
        shutil.rmtree(out)
        if stops == times:
            break
    return f"{times} interrupts at random moments, exit code 130, one line"


def full_disk(trial, times):
    """The disk is full when so much of a run is written; then there is space again."""
    disk = trial.folder("disk")
    disk.mkdir()
    needed = sum(file.stat().st_blocks * 512 for file in trial.folder("undisturbed").rglob("*") if file.is_file())
    with small_disk(disk, 4 * needed) as mounted:
        for number in range(times):
            out, ballast = disk / "run", disk / "ballast"
            room = int(needed * number / times)
            if mounted:
                free = shutil.disk_usage(disk).free
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, free - room)
            started = trial.start(out, None if mounted else room // 4)
            code, said = started.wait(), started.said.read_text()
            lines = [line for line in said.splitlines() if line.startswith("tag2mask: ")]
            trial.expect(code == 2, f"exit code {code} with {room} bytes free: {said[-1500:]}")
            trial.expect(len(lines) == 1 and "Traceback" not in said, f"a full disk says: {said[-1500:]}")
            trial.expect(not started.left_alone(), "processes outlive a full disk")
            if out.exists():
                trial.expect(not corrupt(out), f"corrupt with {room} bytes free: {corrupt(out)}")
                trial.expect(not left_behind_unfinished(out), f"left behind: {left_behind_unfinished(out)}")
            ballast.unlink(missing_ok=True)
            trial.finish(out)
            shutil.rmtree(out)
    kind = "tmpfs" if mounted else "limited file size"
    return f"{times} amounts of room ({kind}), one line, exit code 2"


def left_behind_unfinished(folder):
    return [file.name for file in folder.rglob(".*") if UNFINISHED.fullmatch(file.name)]


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a tmpfs of so many bytes if that is allowed; yields whether it was."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def unreadable(trial, every):
    """One photo in a hundred ends in the middle."""
    scenes = trial.folder("scenes-broken")
    shutil.copytree(trial.scenes, scenes)
    broken = sorted((scenes / "photos").iterdir())[every // 2 :: every]
    for photo in broken:
        photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    out = trial.folder("unreadable")
    started = trial.start(out, scenes=scenes)
    code, said = started.wait(), started.said.read_text()
    trial.expect(code == 0 and "Traceback" not in said, f"exit code {code} with unreadable photos: {said[-1500:]}")
    trial.expect(not corrupt(out), f"corrupt: {corrupt(out)}")
    for photo in broken:
        trial.expect(photo.name in said, f"{photo.name} is not reported")
        trial.expect(not any(out.glob(f"pr*/{photo.stem}.png")), f"{photo.name} has a mask")
    masks = len(list(out.glob("pr*/*.png")))
    photos = len(list((scenes / "photos").iterdir()))
    trial.expect(masks == photos - len(broken), f"{masks} masks of {photos} photos")
    return f"{len(broken)} of {photos} photos truncated: reported, skipped, the run ends"


CASES = {"kill -9": killed, "full disk": full_disk, "unreadable photos": unreadable, "Ctrl-C": interrupted}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--times", type=int, default=10, help="kills; Ctrl-C and full disk half as often")
    parser.add_argument("--photos", type=int, default=120, help="scenes, two thirds of them for training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="start Python anew each time")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_scenes(root / "scenes", count=args.photos, size=96, seed=args.seed)
        (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        trial = Trial(root, root / "scenes", root / "recipe.yaml", args.cold, random.Random(args.seed))
        trial.undisturbed()
        print(f"an undisturbed run takes {trial.seconds:.1f} processor seconds", file=sys.stderr, flush=True)
        print("| case | what was done | faults | seconds |\n|---|---|---|---|", flush=True)
        counts = {"kill -9": args.times, "unreadable photos": min(100, args.photos)}
        for case in args.cases:
            before, started = len(trial.faults), time.monotonic()
            done = CASES[case](trial, counts.get(case, max(1, args.times // 2)))
            rows.append({"case": case, "done": done, "faults": len(trial.faults) - before})
            rows[-1]["seconds"] = round(time.monotonic() - started)
            print("| " + " | ".join(map(str, rows[-1].values())) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "faults": trial.faults}, indent=1) + "\n")
    sys.exit(1 if trial.faults else 0)


if __name__ == "__main__":
    main()
