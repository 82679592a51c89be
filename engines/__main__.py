"""Real engines with rt as their runtime, and with another one as control. See --help.

usage: python3 engines [--list] [--no-control] [FILTER...]

A filter is part of "engine: scenario"; without one everything runs. RT and CONTROL name the two runtimes.
"""

import os
import shutil
import subprocess
import sys
import time
import traceback

import harness
import images
import services
import world
from buildah import Buildah
from conmon import Conmon
from containerd import Ctr
from contract import Contract
from cri import Cri
from docker import Docker, DockerRemapped
from podman import Podman, PodmanRootless
from services import PodmanRootlessServices, PodmanServices, Services

SERVED = [Services, PodmanServices, PodmanRootlessServices]
ENGINES = [Contract, Podman, Conmon, Ctr, Buildah, PodmanRootless, Docker, DockerRemapped, Cri, *SERVED]
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"


def chosen(engine, filters):
    rows = engine.scenarios()
    return [row for row in rows if not filters or any(text in f"{engine.name}: {row[0]}" for text in filters)]


def attempt(function):
    """(verdict, why) of a function that may fail or skip."""
    try:
        function()
        return PASSED, ""
    except harness.Skipped as why:
        return SKIPPED, str(why)
    except harness.Failed as why:
        return FAILED, str(why)
    except Exception:  # A flaw of a scenario is its failure, and the others go on.
        return FAILED, traceback.format_exc(limit=-2)


def play(engine_class, lab, rows, told):
    """Runs one engine's scenarios with one runtime: {title: (verdict, why)}."""
    engine = engine_class(lab)
    verdict, why = attempt(engine.start)
    results = {}
    for title, function in rows:
        began = time.monotonic()
        if verdict == PASSED:
            results[title] = attempt(lambda: function(engine))
            if results[title][0] == FAILED:
                attempt(engine.tidy)
        else:
            results[title] = (verdict, f"the engine does not start: {why}" if verdict == FAILED else why)
        told(title, results[title], time.monotonic() - began)
    ended, why = attempt(engine.finish)
    if ended == FAILED:
        print(f"{engine_class.name}: {why}", file=sys.stderr)
    return results


def run(lab_folder, runtimes, filters):
    """{runtime name: {(engine, title): (verdict, why)}}"""
    images.make(f"{lab_folder}/images")
    results = {name: {} for name, _ in runtimes}
    for engine in ENGINES:
        rows = chosen(engine, filters)
        if not rows:
            continue
        for name, path in runtimes:
            folder = f"{lab_folder}/{name[0]}{ENGINES.index(engine)}"
            lab = harness.Lab(folder, path, name, f"{lab_folder}/images")

            def told(title, result, seconds, name=name, engine=engine):
                print(f"{name:8} {engine.name}: {title}: {result[0]} ({seconds:.1f} s)", flush=True)
                if result[0] == FAILED:
                    print(f"         {result[1]}", flush=True)

            for title, result in play(engine, lab, rows, told).items():
                results[name][engine.name, title] = result
            if not os.environ.get("KEEP"):
                shutil.rmtree(folder, ignore_errors=True)
    return results


def verdict(ours, control):
    """What a row says: a scenario that fails with the control too tells about the machine, not about rt."""
    if ours[0] == FAILED and control and control[0] == FAILED:
        return SKIPPED, f"the machine's, fails with the control, too: {control[1]}"
    return ours


def table(results, runtimes):
    """Prints the table and the count. Returns the exit status."""
    names = [name for name, _ in runtimes]
    ours, control = results[names[0]], results[names[1]] if len(names) > 1 else {}
    counts = {PASSED: 0, FAILED: 0, SKIPPED: 0}
    width = max((len(title) for _, title in ours), default=0)
    print()
    for (engine, title), result in ours.items():
        found, why = verdict(result, control.get((engine, title)))
        counts[found] += 1
        second = control.get((engine, title), ("",))[0]
        note = " ".join(why.split())[:150]
        print(f"{engine:16} {title:{width}}  {found:8} {second:8} {note}".rstrip())
    print(f"\n{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped")
    return 1 if counts[FAILED] or not ours else 0


def main(arguments):
    flags = [word for word in arguments if word.startswith("--")]
    filters = [word for word in arguments if not word.startswith("--")]
    if "--help" in flags:
        print(__doc__)
        return 0
    if "--list" in flags:
        for engine in ENGINES:
            for title, _ in chosen(engine, filters):
                print(f"{engine.name}: {title}")
        return 0
    if os.geteuid() != 0:
        print("engines: needs root\n\n0 passed, 0 failed, 1 skipped")
        return 0
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    runtimes = [("rt", os.path.abspath(os.environ.get("RT") or f"{top}/bin/rt"))]
    control = os.environ.get("CONTROL") or "/usr/sbin/runc"
    if "--no-control" not in flags:
        runtimes.append(("control", os.path.abspath(control)))
    missing = [path for _, path in runtimes if not os.access(path, os.X_OK)]
    if missing:
        print(f"engines: no runtime at {' '.join(missing)}\n\n0 passed, 1 failed, 0 skipped")
        return 1
    if "--inside" not in flags:
        if any(chosen(engine, filters) for engine in SERVED):
            # Without it (no network, another distribution) the scenarios say so and are skipped.
            subprocess.run([f"{top}/engines/services-tree", services.tree()], check=False)
        return world.enter(arguments)
    lab = filters.pop(0)
    world.settle(lab)
    return table(run(lab, runtimes, filters), runtimes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
