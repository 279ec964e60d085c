"""The aggregator: whether it falls behind its best member, how far it is ahead of its peers, and its time for a page.

Five parts, see `benchmarks/aggregation/`: `harm` (200 worlds where nothing is to be gained), `ahead` (412 worlds of
500 to 20,000 pairs, against seven peers), `capacity` (larger trees at 200,000 pairs), `pages` (a column that tells of
the other pairs of a page) and `page` (time). On one core all parts take some 35 minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.harness import Figure, arguments, report

PARTS = ("page", "harm", "ahead", "capacity", "pages")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("aggregator", __doc__, argv, PARTS)
    # LightGBM, NumPy and scikit-learn read the number of threads when they are imported
    from benchmarks.aggregation import ahead, capacity, harm, page, pages

    modules = {"page": page, "harm": harm, "ahead": ahead, "capacity": capacity, "pages": pages}
    figures: list[Figure] = []
    for part in options.only:
        for title, found in modules[part].measure(options.quick, options.seed):
            figures += [replace(each, name=f"{title}: {each.name}") for each in found]
            if not options.json:
                report(title, found, False, beside=part in ("ahead", "capacity"))
    if options.json:
        report("aggregator", figures, True)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
