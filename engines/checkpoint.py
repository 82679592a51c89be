"""Checkpoint and restore through engines: a program goes on counting."""

import os
import shutil
import subprocess

from harness import Skipped, check, eventually

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def needs_criu(lab):
    """Skips unless CRIU, by itself, can dump a sleeping process here and restore it."""
    criu = shutil.which("criu", path=lab.env["PATH"])
    if criu is None:
        raise Skipped("criu is not there")
    folder = lab.path("criu")
    os.makedirs(folder, exist_ok=True)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sleep = subprocess.Popen(["sleep", "100"], start_new_session=True, **quiet)
    try:
        eventually(lambda: os.readlink(f"/proc/{sleep.pid}/exe").endswith(("sleep", "busybox", "coreutils")), "sleep runs")
        dumped = subprocess.run([criu, "dump", "-t", str(sleep.pid), "-D", folder], check=False, **quiet).returncode
    finally:
        sleep.kill()
        sleep.wait()
    if dumped != 0:
        raise Skipped("criu cannot dump a sleeping process here")


def last_number(text):
    """The number in the last line of an output that may have other lines in it."""
    numbers = [line for line in text.split() if line.isdigit()]
    return int(numbers[-1]) if numbers else 0


def goes_on(number, before, text):
    """Waits until a count has gone on; one that has begun anew is found out."""
    reached = eventually(lambda: number() > before and number(), text)
    check(reached < before + 500, f"{text}: {before}, then {reached}")
    return reached
