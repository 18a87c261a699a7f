"""What a proxy costs per operation: ours, the bare object, and other proxies.

    python -m benchmarks.proxy_ops [--quick] [--rounds N] [--json FILE]

All proxies are resolved, but in the rows that make, resolve or pickle one. Times are
nanoseconds per operation; the report also has them under `ns`, by row and system.
"""

from __future__ import annotations

import itertools
import json
import pickle
import sys
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: `benchmarks` is then not importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._harness import Report, have, interleave, median, parse, progress
from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy


class Thing:
    """A target with everything that the rows ask for."""

    def __init__(self) -> None:
        self.x = 1

    def method(self) -> None:
        """Do nothing."""

    def __call__(self, value: int) -> int:
        """Return the value."""
        return value

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


# row -> (statement on p, target)
OPERATIONS: dict[str, tuple[str, Any]] = {
    "attribute get": ("p.x", Thing()),
    "attribute set": ("p.x = 1", Thing()),
    "method call": ("p.method()", Thing()),
    "call": ("p(1)", Thing()),
    "with": ("with p: pass", Thing()),
    "isinstance": ("isinstance(p, Thing)", Thing()),
    "hash": ("hash(p)", 5),
    "add": ("p + 1", 5),
    "add, reflected": ("1 + p", 5),
    "add, in place": ("q = p; q += 0", 5),
    "divide": ("p / 3", 5.0),
    "power": ("p ** 2", 5),
    "negate": ("-p", 5),
    "abs": ("abs(p)", 5),
    "equal": ("p == 5", 5),
    "less": ("p < 6", 5),
    "int": ("int(p)", 5),
    "float": ("float(p)", 5.0),
    "index": ("data[p]", 5),
    "str": ("str(p)", "text"),
    "bool": ("not p", [1, 2, 3]),
    "len": ("len(p)", [1, 2, 3]),
    "getitem": ("p[1]", [1, 2, 3]),
    "setitem": ("p[1] = 2", [1, 2, 3]),
    "getitem of a dict": ("p['a']", {"a": 1}),
    "contains": ("1 in p", [1, 2, 3]),
    "iterate over 3": ("for _ in p: pass", [1, 2, 3]),
    "next": ("next(p)", None),
}

LIFECYCLE = {
    "make": "Proxy(factory)",
    "make and resolve": "len(Proxy(factory))",
    "pickle": "pickle.dumps(p)",
    "unpickle": "pickle.loads(data)",
}


def systems() -> dict[str, Callable[[Any], Any]]:
    """Give what to measure, as functions from a target to a resolved proxy of it."""
    made: dict[str, Callable[[Any], Any]] = {
        "ours": lambda target: Proxy(SimpleFactory(target), target=target),
        "bare": lambda target: target,
    }
    if have("proxystore"):
        from proxystore.factory import SimpleFactory as TheirFactory
        from proxystore.proxy import Proxy as TheirProxy

        made["proxystore"] = lambda target: TheirProxy(TheirFactory(target), target=target)
    if have("lazy_object_proxy"):
        import lazy_object_proxy

        made["lazy-object-proxy"] = lambda target: _touched(lazy_object_proxy.Proxy, target)
    if have("wrapt"):
        import wrapt

        made["wrapt"] = wrapt.ObjectProxy
    return made


def _touched(proxy: Any, target: Any) -> Any:
    made = proxy(lambda: target)
    str(made)
    return made


def case(statement: str, variables: dict[str, Any], number: int) -> Callable[[], float]:
    """Give a call that measures a statement; it returns seconds per execution.

    A sample is the best of ten short bursts: a few milliseconds are often interrupted as a whole.
    """
    timer = timeit.Timer(statement, globals=variables)
    burst = max(1, number // 10)
    return lambda: min(timer.repeat(10, burst)) / burst


def operations(name: str, wrap: Callable[[Any], Any], number: int) -> dict[str, Any]:
    """Give a case for each operation that a system supports."""
    cases = {}
    for row, (statement, target) in OPERATIONS.items():
        made = itertools.count() if row == "next" else target
        variables = {"p": wrap(made), "Thing": Thing, "data": list(range(10))}
        try:
            exec(statement, dict(variables))
        except TypeError:  # this system does not forward it
            continue
        cases[f"{row}|{name}"] = case(statement, variables, number)
    return cases


def lifecycle(number: int) -> dict[str, Any]:
    """Give the cases that make, resolve and pickle a proxy."""
    made: dict[str, tuple[Any, Any]] = {"ours": (Proxy, SimpleFactory)}
    if have("proxystore"):
        from proxystore.factory import SimpleFactory as TheirFactory
        from proxystore.proxy import Proxy as TheirProxy

        made["proxystore"] = (TheirProxy, TheirFactory)
    cases = {}
    for name, (proxy, factory) in made.items():
        unresolved = proxy(factory([1, 2, 3]))
        variables = {
            "Proxy": proxy,
            "factory": factory([1, 2, 3]),
            "p": unresolved,
            "pickle": pickle,
            "data": pickle.dumps(unresolved),
        }
        for row, statement in LIFECYCLE.items():
            cases[f"{row}|{name}"] = case(statement, variables, number)
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(argv, (__doc__ or "").splitlines()[0])
    report = Report("proxy")
    number = 200 if options.quick else 10_000
    progress("proxies, operation by operation")
    cases: dict[str, Callable[[], float]] = {}
    for name, wrap in systems().items():
        cases |= operations(name, wrap, number)
    cases |= lifecycle(max(number // 10, 20))
    report.samples = interleave(cases, options.rounds, warmup=2)

    medians: dict[str, dict[str, float]] = {}
    for label, values in report.samples.items():
        row, _, name = label.partition("|")
        medians.setdefault(row, {})[name] = median(values)
    for row, times in medians.items():
        # Resolving side by side in threads costs some 0.5 µs, once in the life of a proxy.
        target = None if row == "make and resolve" or options.quick else 1.0
        if "proxystore" in times:
            report.faster(row, "ProxyStore", times["ours"], times["proxystore"], target)
        else:
            report.not_run(row, "ProxyStore", "pip install 'proxystore-core[bench]'")
        if "bare" in times:
            report.faster(row, "bare object", times["ours"], times["bare"])
    report.finish(options)
    print(f"\n{chart(medians)}")
    if options.json is not None:
        written = json.loads(options.json.read_text())
        written["ns"] = {
            row: {name: time * 1e9 for name, time in times.items()}
            for row, times in medians.items()
        }
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def chart(medians: dict[str, dict[str, float]]) -> str:
    """Draw nanoseconds per operation, one operation a line, and two ratios."""
    names = ["bare", "ours", "proxystore", "lazy-object-proxy", "wrapt"]
    heads = [*names, "proxystore / ours", "ours / bare"]
    lines = [f"{'ns per operation':18}" + "".join(f"{head:>19}" for head in heads)]
    for row, times in medians.items():
        cells = [f"{times[name] * 1e9:.0f}" if name in times else "-" for name in names]
        for above, below in (("proxystore", "ours"), ("ours", "bare")):
            known = above in times and below in times
            cells.append(f"{times[above] / times[below]:.2f}" if known else "-")
        lines.append(f"{row:18}" + "".join(f"{cell:>19}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
