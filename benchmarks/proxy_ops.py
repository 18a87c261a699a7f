"""What a proxy costs per operation: ours, the bare object, and other proxies.

    python -m benchmarks.proxy_ops [--quick] [--rounds N] [--json FILE]

All proxies are resolved, but in the rows that make, resolve or pickle one. Times are
nanoseconds per operation; the report also has them under `ns`, by row and system.
"""

from __future__ import annotations

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
    "next": ("next(p)", "count"),
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
    """Give a call that measures a statement; it returns seconds per execution."""
    timer = timeit.Timer(statement, globals=variables)
    return lambda: timer.timeit(number) / number


def operations(name: str, wrap: Callable[[Any], Any], number: int) -> dict[str, Any]:
    """Give a case for each operation that a system supports."""
    cases = {}
    for row, (statement, target) in OPERATIONS.items():
        if target == "count":
            import itertools

            target = itertools.count()
        variables = {"p": wrap(target), "Thing": Thing, "data": list(range(10))}
        try:
            exec(statement, dict(variables))
        except TypeError:  # this system does not forward it
            continue
        cases[f"{row}|{name}"] = case(statement, variables, number)
    return cases


def lifecycle(number: int) -> dict[str, Any]:
    """Give the cases that make, resolve and pickle a proxy."""
    cases = {}
    known = {"ours": ("proxystore_core", Proxy, SimpleFactory)}
    if have("proxystore"):
        from proxystore.factory import SimpleFactory as TheirFactory
        from proxystore.proxy import Proxy as TheirProxy

        known["proxystore"] = ("proxystore", TheirProxy, TheirFactory)
    for name, (_, proxy, factory) in known.items():
        unresolved = proxy(factory([1, 2, 3]))
        variables = {
            "Proxy": proxy,
            "factory": factory([1, 2, 3]),
            "p": unresolved,
            "dumps": pickle.dumps,
            "loads": pickle.loads,
            "data": pickle.dumps(unresolved),
        }
        statements = {
            "make": "Proxy(factory)",
            "make and resolve": "len(Proxy(factory))",
            "pickle": "dumps(p)",
            "unpickle": "loads(data)",
        }
        for row, statement in statements.items():
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
    samples = interleave(cases, options.rounds, warmup=2)
    report.samples = samples

    ns: dict[str, dict[str, float]] = {}
    for label, values in samples.items():
        row, _, name = label.partition("|")
        ns.setdefault(row, {})[name] = median(values)
    for row, times in ns.items():
        ours = times["ours"]
        for name, theirs in times.items():
            if name == "bare":
                continue
            if name != "ours":
                report.faster(row, name, ours, theirs, 1.0 if name == "proxystore" else None)
        if "bare" in times:
            report.faster(row, "bare object", ours, times["bare"])
        if "proxystore" not in times:
            report.not_run(row, "proxystore", "pip install 'proxystore-core[bench]'")
    report.finish(options)
    print(chart(ns))
    if options.json is not None:
        written = json.loads(options.json.read_text())
        written["ns"] = {r: {n: t * 1e9 for n, t in times.items()} for r, times in ns.items()}
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def chart(ns: dict[str, dict[str, float]]) -> str:
    """Draw the nanoseconds, one operation a line."""
    names = ["bare", "ours", "proxystore", "lazy-object-proxy", "wrapt"]
    head = f"{'ns per operation':20}" + "".join(f"{name:>19}" for name in names)
    lines = [head + f"{'theirs / ours':>16}{'ours / bare':>14}"]
    for row, times in ns.items():
        cells = [f"{times[n] * 1e9:19.0f}" if n in times else f"{'-':>19}" for n in names]
        ours = times["ours"]
        for name, (up, down) in {"ps": ("proxystore", "ours"), "bare": ("ours", "bare")}.items():
            width = 16 if name == "ps" else 14
            ratio = times[up] / times[down] if up in times and down in times else None
            cells.append(f"{'-' if ratio is None else f'{ratio:.2f}':>{width}}")
        lines.append(f"{row:20}" + "".join(cells))
        del ours
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
