"""Run the corpus, and print what went wrong: `python -m tests.torture OUT [--only REGEX] [--seed N] [--jobs 2]`."""

import argparse
import collections
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.torture.case import KINDS, Case, Result
from tests.torture.clips import write_shared
from tests.torture.corpus import all_cases
from tests.torture.runner import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the folders of cases without a fault")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    shared = write_shared(out / "shared")
    cases = [case for case in all_cases(options.seed) if re.search(options.only, case.name)]

    def one(case: Case) -> Result:
        result = run(case, out / "cases", shared)
        marks = " ".join(f"{kind.upper()}: {why}" for kind, why in result.faults.items())
        text = f"{case.name:45} rc={result.rc:4} {result.wall_s:5.1f}s {result.peak_mb:5.0f}MB {marks} {result.skipped}"
        print(text, flush=True)
        facts = {"case": case.name, "rc": result.rc, "faults": result.faults, "stderr": result.err.strip()[-600:]}
        with open(out / "results.jsonl", "a") as log:
            log.write(json.dumps(facts) + "\n")
        if not result.faults and not options.keep:
            shutil.rmtree(out / "cases" / case.name, ignore_errors=True)
        return result

    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(one, cases))
    _print_table(cases, results)
    print(f"\n{time.monotonic() - began:.0f} s, seed {options.seed}")


def _print_table(cases: list[Case], results: list[Result]) -> None:
    """Print a row for each group of cases; a case may have faults of several kinds."""
    groups: dict[str, list[Result]] = collections.defaultdict(list)
    for case, result in zip(cases, results, strict=True):
        groups[".".join(case.name.split(".")[: 2 if case.name.startswith("media") else 1])].append(result)
    print("\n" + f"{'group':22}{'cases':>6}{'clean':>6}" + "".join(f"{kind[:11]:>12}" for kind in KINDS))
    for name, rows in [*sorted(groups.items()), ("all", results)]:
        counts = "".join(f"{sum(kind in row.faults for row in rows) or '.':>12}" for kind in KINDS)
        print(f"{name:22}{len(rows):6}{sum(not row.faults for row in rows):6}{counts}")


if __name__ == "__main__":
    main()
