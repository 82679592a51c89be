"""What a clock has no part in: system calls and instructions of rt alone. Used by bench/bench."""

import os
import re
import shutil
import subprocess


def calls(rt, root, bundle, name):
    """The system calls of one `run`, whole process tree (strace -f -c)."""
    out = os.path.join(os.path.dirname(root), "calls")
    command = ["strace", "-f", "-c", "-U", "calls,name", "-o", out, rt, "--root", root, "run", "--bundle", bundle, name]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    with open(out, encoding="utf-8") as file:
        totals = [line.split()[0] for line in file if line.rstrip().endswith("total")]
    return int(totals[-1]) if totals else None


def instructions(rt, root, bundle, name):
    """The instructions in user space until the plan is made and shown, as valgrind executes them."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", rt, "--root", root, "run", "--dry-run",
               "--bundle", bundle, name]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", result.stderr)
    return int(found.group(1)) if found else None


def take(runtime, bundles, name):
    """Titles and numbers; None where a tool is missing."""
    def bundle(variant):
        return os.path.join(bundles, variant)

    counts = {}
    root = runtime.command("state", "x")
    root = root[root.index("--root") + 1]
    if shutil.which("strace"):
        for variant in ("engine", "engine-without-seccomp", "min"):
            counts[f"system calls of run, {variant}"] = calls(runtime.path, root, bundle(variant), name())
    if shutil.which("valgrind"):
        for variant in ("engine", "engine-without-seccomp", "min"):
            counts[f"instructions of reading and planning, {variant}"] = instructions(runtime.path, root, bundle(variant), name())
    return counts


def table(counts):
    lines = ["| what | rt |", "|---|---:|"]
    return "\n".join(lines + [f"| {title} | {'-' if number is None else number} |" for title, number in counts.items()])
