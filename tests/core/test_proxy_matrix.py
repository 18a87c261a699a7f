"""Every row of docs/transparency.md is executed here, and the page is made of these rows.

    python tests/core/test_proxy_matrix.py        # writes the page

An expression is evaluated twice, with `p` the object itself and with `p` an unresolved proxy of it.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, describe, extract, is_proxy, is_resolved

PAGE = Path(__file__).parent.parent.parent / "docs" / "transparency.md"
MODULES = """
    collections.abc contextlib copy csv dask.base dask.sizeof datetime decimal fractions functools
    hashlib inspect io itertools json math numbers operator os pathlib pickle pprint re statistics
    struct sys tempfile time zlib
"""
LIBRARIES = {"np": "numpy", "pd": "pandas", "pl": "polars", "pa": "pyarrow"}
BUFFERS = sys.version_info >= (3, 12)

UNRESOLVED = "yes, unresolved"  # as the object, and the proxy is still unresolved afterwards
YES = "yes"  # as the object
LATER = "from Python 3.12"  # as the object there, an error before
DIFFERS = "differs"  # another answer than the object's
NO = "no"  # an error


class Row(NamedTuple):
    target: str
    code: str
    outcome: str = YES
    instead: str = ""
    shown: str = ""
    needs: str = ""


@dataclasses.dataclass
class Point:
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int


class Color(enum.Enum):
    RED = 1


def function(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


def match_sequence(p: Any) -> Any:
    match p:
        case [first, *_]:
            return first
    return "no match"


def match_mapping(p: Any) -> Any:
    match p:
        case {"a": value}:
            return value
    return "no match"


def match_class(p: Any) -> Any:
    match p:
        case Point(x=x):
            return x
    return "no match"


def match_value(p: Any) -> Any:
    match p:
        case 5:
            return "five"
    return "no match"


def keywords(**kwargs: Any) -> dict[str, Any]:
    return kwargs


def unpacked(p: Any) -> Any:
    first, *rest = p
    return first, rest


def in_place(p: Any) -> Any:
    p += p
    return extract(p) if is_proxy(p) else p


def extended(p: Any) -> Any:
    numbers = same_list = [0]
    numbers += p
    return same_list


def within(p: Any) -> Any:
    with p as entered:
        return entered


def raised(p: Any) -> Any:
    try:
        raise p
    except ValueError:
        return "caught"


def excepted(p: Any) -> Any:
    try:
        raise KeyError
    except p:
        return "caught"


def derived(p: Any) -> Any:
    class Derived(p): ...

    return issubclass(Derived, Point)


def awaited(p: Any) -> Any:
    async def wait() -> Any:
        return await p

    coroutine = wait()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coroutine.close()


async def coroutine(value: int) -> int:
    return value


def written(p: Any, file: Any) -> Any:
    with file:
        file.write(p)
        file.seek(0)
        return file.read()


def opened(p: Any) -> bool:
    with open(p) as file:
        return file.read() == ""


FRAME = "pd.DataFrame({'a': [1, 2], 'b': [3.0, 4.0]})"
ARRAY = "np.arange(6.0)"
TENSOR = "torch.arange(6.0)"
EXTRACT = "`extract(p)`"
CLASS = "`extract(p)`: torch reads the memory of all that claims to be a tensor"

SECTIONS: dict[str, list[Row]] = {
    "What never resolves": [
        Row("[1, 2]", "isinstance(p, list)", UNRESOLVED),
        Row("Frozen(1)", "hash(p)", UNRESOLVED),
        Row("'text'", "hash(p)", UNRESOLVED, "resolves for text and bytes over 128 kB"),
        Row("[1, 2]", "len(p)", UNRESOLVED),
        Row("[]", "bool(p)", UNRESOLVED, "resolves where the type defines `__bool__`"),
        Row(ARRAY, "(p.shape, p.dtype, p.ndim, p.size, p.nbytes)", UNRESOLVED),
        Row(FRAME, "(p.shape, p.ndim, p.size, len(p))", UNRESOLVED),
        Row("pl.DataFrame({'a': [1, 2]})", "p.shape", UNRESOLVED),
        Row(TENSOR, "(p.shape, p.dtype, p.ndim)", UNRESOLVED, needs="torch"),
        Row("[1, 2]", "copy.copy(p) == t", UNRESOLVED, "copies the reference"),
        Row("[1, 2]", "copy.deepcopy(p) == t", UNRESOLVED, "copies the reference"),
        Row("[1, 2]", "len(pickle.dumps(p)) > 0", UNRESOLVED, "pickles the reference"),
        Row("[1, 2]", "len(dask.base.tokenize(p))", UNRESOLVED),
        Row("[1, 2]", "dask.sizeof.sizeof(p) > 0", UNRESOLVED, "of the proxy, not of the target"),
        Row("[1, 2]", "sys.getsizeof(p) > 0", UNRESOLVED, "of the proxy, not of the target"),
        Row("[1, 2]", "dask.base.is_dask_collection(p)", UNRESOLVED),
        Row("[1, 2]", "hasattr(p, '__array_interface__')", UNRESOLVED),
        Row("[1, 2]", "bool(repr(p))", UNRESOLVED),
        Row("5", "isinstance(p, numbers.Number)", UNRESOLVED),
        Row("{}", "isinstance(p, collections.abc.Mapping)", UNRESOLVED),
        Row("5", "p is None", UNRESOLVED),
    ],
    "Operators and builtins": [
        Row("5", "(p + 1, 1 + p, p - 1, 1 - p, p * 2, p / 2, p // 2, p % 2, -p, ~p, abs(p))"),
        Row("5", "(p == 5, 5 == p, p < 6, 6 > p, p != 5)"),
        Row("5", "(divmod(p, 2), divmod(7, p), p ** 2, 2 ** p, pow(p, 2, 3))"),
        Row("5", "pow(2, p, 3)", NO, EXTRACT),
        Row("5", "(int(p), float(p), complex(p), hex(p), chr(p), operator.index(p))"),
        Row("2.567", "(round(p), round(p, 2), math.floor(p), math.ceil(p), math.trunc(p))"),
        Row("2.5", "(math.sqrt(p), math.isclose(p, 2.5), math.fsum([p, p]))"),
        Row("5", "f'{p:03d}'"),
        Row("2.5", "f'{p:.2f}'"),
        Row("2.5", "'%.1f %s' % (p, p)"),
        Row("5", "([0, 1, 2, 3, 4, 6][p], range(9)[p], list(range(p)))"),
        Row("[1]", "in_place(p)", shown="p += p"),
        Row("[3, 1]", "(sorted(p), sum(p), max(p), list(reversed(p)), p[::-1], list(zip(p, p)))"),
        Row("[3, 1]", "([0] + p, p + [2], [*p], p * 2, 3 in p)"),
        Row("[3, 1]", "extended(p)", DIFFERS, "`x.extend(p)`: this makes another list", "x += p"),
        Row("[3, 1]", "unpacked(p)", shown="first, *rest = p"),
        Row("{'a': 1}", "({**p}, dict(p), p | {'b': 2}, {'b': 2} | p, keywords(**p))"),
        Row("{1}", "({1, 2} - p, {1, 2} & p, {2} | p)"),
        Row("slice(1)", "[1, 2][p]", NO, "`[1, 2][extract(p)]`"),
        Row("'text'", "(str(p), p + 'd', 'x' + p, 'x' in p, p.upper(), '{}'.format(p), p[0])"),
        Row("'b'", "p in 'abc'", NO, "`str(p) in 'abc'`"),
        Row("'b'", "''.join([p])", NO, "`''.join([str(p)])`"),
        Row("'b'", "'abc'.startswith(p)", NO, "`str(p)`, as for most arguments of `str` methods"),
        Row("'upper'", "getattr('abc', p)", NO, "`str(p)`"),
        Row("'1 + 1'", "eval(p)", NO, "`str(p)`"),
        Row("True", "p is True", DIFFERS, "`p == True`; a store proxies neither `None` nor `bool`"),
        Row("[1, 2]", "type(p) is list", DIFFERS, "`isinstance(p, list)`, `p.__class__ is list`"),
        Row("[1, 2]", "repr(p)", DIFFERS, "`repr(extract(p))`: this describes an unresolved proxy"),
        Row("iter([1])", "(next(p), list(p))"),
        Row("function", "(p(1), p(1, b=3), functools.partial(p, 1)())"),
        Row("contextlib.nullcontext(3)", "within(p)", shown="with p as entered: ..."),
        Row("coroutine(3)", "awaited(p)", shown="await p"),
        Row("Point", "(isinstance(t(1, 2), p), issubclass(p, object), issubclass(t, p))"),
        Row("Point", "derived(p)", shown="class Derived(p): ..."),
        Row("ValueError('x')", "raised(p)", NO, "`raise extract(p)`", shown="raise p"),
        Row("KeyError", "excepted(p)", NO, "`except extract(p)`", shown="except p:"),
        Row("5", "match_value(p)", shown="match p: case 5: ..."),
        Row("Point(1, 2)", "match_class(p)", shown="match p: case Point(x=x): ..."),
        Row(
            "{'a': 1}", "match_mapping(p)", DIFFERS, "`match extract(p)`", "match p: case {'a': v}:"
        ),
        Row("[1, 2]", "match_sequence(p)", DIFFERS, "`match extract(p)`", "match p: case [a, *_]:"),
    ],
    "What every proxy seems to be": [
        Row("[1, 2]", "callable(p)", DIFFERS, "`callable(extract(p))`"),
        Row("5", "hasattr(p, '__len__')", DIFFERS, "`hasattr(p.__class__, '__len__')`"),
        Row("5", "isinstance(p, collections.abc.Iterable)", DIFFERS, "`isinstance(p, list)`, …"),
        Row("[1]", "isinstance(p, collections.abc.Iterator)", DIFFERS, EXTRACT),
        Row("[1]", "isinstance(p, collections.abc.Callable)", DIFFERS, EXTRACT),
        Row("5", "inspect.isawaitable(p)", DIFFERS, EXTRACT),
    ],
    "The standard library": [
        Row("{'a': 1}", "json.dumps(p, default=extract)"),
        Row("{'a': 1}", "json.dumps(p)", NO, "`json.dumps(p, default=extract)`"),
        Row("'[1]'", "json.loads(p)", NO, "`json.loads(str(p))`"),
        Row("'text'", "re.match('t', p)[0]", NO, "`re.match('t', str(p))`"),
        Row("b'text'", "re.match(b't', p)[0]", LATER, EXTRACT),
        Row("'a,b'", "list(csv.reader([p]))", NO, "`str(p)`"),
        Row("'text'", "print(p, file=io.StringIO())"),
        Row("'text'", "written(p, io.StringIO())", NO, "`file.write(str(p))`", "file.write(p)"),
        Row("b'text'", "written(p, tempfile.TemporaryFile())", LATER, EXTRACT, "file.write(p)"),
        Row("b'text'", "(bytes(p), b'x' + p, p.decode(), bytearray(p), int.from_bytes(p, 'big'))"),
        Row("b'text'", "memoryview(p).nbytes", LATER, "`memoryview(extract(p))`"),
        Row("b'text'", "b''.join([p])", LATER, "`b''.join([bytes(p)])`"),
        Row("b'text'", "(zlib.crc32(p), hashlib.sha256(p).digest())", LATER, EXTRACT),
        Row("b'text'", "(struct.unpack('4s', p), io.BytesIO(p).read())", LATER, EXTRACT),
        Row("pickle.dumps(1)", "pickle.loads(p)", LATER, EXTRACT),
        Row("1", "struct.pack('i', p)"),
        Row("'/tmp'", "(os.fspath(p), os.path.join(p, 'a'), pathlib.Path(p))"),
        Row("'/dev/null'", "opened(p)", shown="open(p)"),
        Row("'/tmp'", "os.path.exists(p)", NO, "`os.path.exists(str(p))`, `Path(p).exists()`"),
        Row("'/tmp'", "len(os.listdir(p)) > -1", NO, "`os.listdir(str(p))`", "os.listdir(p)"),
        Row("0.001", "time.sleep(p)", NO, "`float(p)`"),
        Row("5", "decimal.Decimal(p)", NO, "`decimal.Decimal(int(p))`"),
        Row("decimal.Decimal(5)", "(p + 1, decimal.Decimal(1) + p)"),
        Row("5", "fractions.Fraction(p)"),
        Row("2.5", "statistics.mean([p, 1.5])", NO, "`float(p)`"),
        Row("1", "datetime.timedelta(days=p)", NO, "`int(p)`"),
        Row("datetime.datetime(2020, 1, 1)", "(p + datetime.timedelta(1), p < t.max, t.max - p)"),
        Row("Point(1, 2)", "(p.x, p == t, vars(p), len(dataclasses.fields(p)))"),
        Row("Point(1, 2)", "dataclasses.asdict(p)", NO, "`dataclasses.asdict(extract(p))`"),
        Row("Point(1, 2)", "dataclasses.is_dataclass(p)", DIFFERS, EXTRACT),
        Row("Color.RED", "(p.name, p == t, p.value)"),
        Row("Color.RED", "p is Color.RED", DIFFERS, "`p == Color.RED`"),
        Row("function", "(p.__name__, p.__doc__, p.__module__, str(inspect.signature(p)))"),
        Row("function", "functools.wraps(p)(lambda: 1).__doc__"),
        Row("[1, 2]", "(list(itertools.chain(p, p)), functools.reduce(operator.add, p))"),
        Row("[1, 2]", "pprint.pformat(p)", DIFFERS, "`pprint.pformat(extract(p))`"),
    ],
    "NumPy": [
        Row(ARRAY, "np.asarray(p)"),
        Row(ARRAY, "np.shares_memory(np.asarray(p), t)"),
        Row(ARRAY, "(np.array(p) is t, np.asarray(p, dtype='f4').dtype)"),
        Row(ARRAY, "np.array([p, p])"),
        Row("5", "np.array([p, 1.5])"),
        Row("[[1, 2], [3, 4]]", "np.asarray(p)"),
        Row(ARRAY, "np.ones(6) + p * np.ones(6) - (np.ones(6) @ p)"),
        Row(ARRAY, "np.ones(6) < p"),
        Row(ARRAY, "np.hypot(np.sin(p), p)"),
        Row(ARRAY, "np.add.reduce(p)"),
        Row(ARRAY, "np.add(np.ones(6), 1, out=p)"),
        Row(ARRAY, "np.concatenate([p, p])"),
        Row(ARRAY, "np.stack([p, t])"),
        Row(ARRAY, "np.where(p > 2, p, 0)"),
        Row(ARRAY, "np.einsum('i,i', p, p) + np.dot(p, p) + np.mean(p)"),
        Row(ARRAY, "np.fft.fft(p)"),
        Row("np.eye(2)", "np.linalg.solve(p, np.ones(2))"),
        Row(ARRAY, "np.save(io.BytesIO(), p)"),
        Row(ARRAY, "np.testing.assert_array_equal(p, t)"),
        Row(ARRAY, "np.random.default_rng(0).permutation(p)"),
        Row(ARRAY, "np.copyto(np.ones(6), p)"),
        Row(ARRAY, "p.reshape(2, 3).T"),
        Row(ARRAY, "np.ones(6)[p > 2]"),
        Row("np.array([1, 0])", "np.arange(2.0)[p]"),
        Row("5", "np.zeros(p)"),
        Row("(2, 3)", "np.zeros(p)"),
        Row("np.float64(2)", "np.float64(1) + p"),
        Row("slice(2)", "np.ones(6)[p]", NO, EXTRACT),
        Row(
            "(0, 1)",
            "np.eye(2)[p]",
            DIFFERS,
            "`np.eye(2)[extract(p)]`: a tuple is taken for a list",
        ),
        Row("'f4'", "np.zeros(2, dtype=p)", NO, EXTRACT),
        Row(ARRAY, "np.frombuffer(p)", LATER, EXTRACT),
        Row(ARRAY, "memoryview(p).nbytes", LATER, "`memoryview(extract(p))`"),
        Row(ARRAY, "np.ndarray.sum(p)", NO, "`p.sum()`"),
        Row(ARRAY, "p.__array_interface__['shape']", NO, "`np.asarray(p).__array_interface__`"),
    ],
    "pandas, polars, Arrow": [
        Row(FRAME, "p['a'] + p.a"),
        Row(FRAME, "t + p"),
        Row(FRAME, "np.sqrt(p)"),
        Row(FRAME, "pd.concat([p, t])"),
        Row(FRAME, "pd.merge(t, p, on='a')"),
        Row("pd.DataFrame({'c': [5, 6]})", "pd.DataFrame({'a': [1, 2]}).join(p)"),
        Row(FRAME, "t.equals(p)"),
        Row(FRAME, "p.groupby('a').sum()"),
        Row(FRAME, "pd.melt(p)"),
        Row(FRAME, "pd.isna(pd.DataFrame(p))"),
        Row(FRAME, "pd.testing.assert_frame_equal(t, p)", NO, EXTRACT),
        Row("pd.Series([1, 2])", "pd.Series([3, 4]) + p"),
        Row("pd.Series([1, 2])", "pd.DataFrame({'a': p})"),
        Row("pd.Series(['2020', '2021'])", "pd.to_datetime(p)"),
        Row("{'a': [1, 2]}", "pd.DataFrame(p)"),
        Row(ARRAY, "pd.Series(p)"),
        Row("pd.Series([True, False])", f"{FRAME}[p]", NO, "`frame[extract(p)]`", "frame[p]"),
        Row("'a'", f"{FRAME}[p]", NO, "`frame[extract(p)]`", "frame[p]"),
        Row("{1: 5}", "pd.Series([1, 2]).map(p)", NO, "`.map(extract(p))`: it looks callable"),
        Row("pd.Timestamp('2020')", "(p + pd.Timedelta('1D'), pd.Timestamp('2021') > p)"),
        Row("pd.Timestamp('2020')", "pd.Timestamp(p)", NO, EXTRACT),
        Row("pl.DataFrame({'a': [1, 2]})", "p.select('a')"),
        Row("pl.DataFrame({'a': [1, 2]})", "pl.concat([p, t])", outcome=YES),
        Row("pl.DataFrame({'a': [1, 2]})", "t.join(p, on='a')"),
        Row(FRAME, "pl.from_pandas(p)"),
        Row("pa.table({'a': [1, 2]})", "p.num_rows"),
        Row("pa.table({'a': [1, 2]})", "pa.concat_tables([p, p])", NO, EXTRACT),
        Row(ARRAY, "pa.array(p)"),
        Row(FRAME, "pa.Table.from_pandas(p)"),
    ],
    "torch": [
        Row(TENSOR, "p.sum()", needs="torch"),
        Row(TENSOR, "p + torch.ones(6)", needs="torch"),
        Row(TENSOR, "torch.ones(6) + p", needs="torch"),
        Row(TENSOR, "torch.sin(p)", needs="torch"),
        Row(TENSOR, "torch.cat([p, p])", needs="torch"),
        Row(TENSOR, "torch.stack([p, t])", needs="torch"),
        Row(TENSOR, "torch.nn.functional.relu(p)", needs="torch"),
        Row(TENSOR, "torch.nn.Linear(6, 1)(p).shape", needs="torch"),
        Row(TENSOR, "torch.as_tensor(p)", needs="torch"),
        Row(TENSOR, "torch.as_tensor(p).data_ptr() == t.data_ptr()", needs="torch"),
        Row(TENSOR, "torch.where(p > 2, p, 0)", needs="torch"),
        Row(TENSOR, "torch.ones(6)[p > 2]", needs="torch"),
        Row(TENSOR, "torch.ones(6).copy_(p)", needs="torch"),
        Row(TENSOR, "np.asarray(p)", needs="torch"),
        Row(TENSOR, "isinstance(p, torch.Tensor)", DIFFERS, CLASS, needs="torch"),
        Row(TENSOR, "torch.is_tensor(p)", DIFFERS, CLASS, needs="torch"),
        Row(TENSOR, "torch.nn.Parameter(p)", NO, EXTRACT, needs="torch"),
        Row(TENSOR, "torch.vmap(torch.sin)(p)", NO, EXTRACT, needs="torch"),
        Row(ARRAY, "torch.as_tensor(p)", needs="torch"),
        Row(ARRAY, "torch.from_numpy(p)", NO, "`torch.from_numpy(extract(p))`", needs="torch"),
    ],
}


def evaluate(code: str, names: dict[str, Any]) -> Any:
    try:
        return extracted(eval(code, dict(names)))
    except Exception as error:
        return error


def extracted(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(map(extracted, value))
    return extract(value) if is_proxy(value) else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):
        return False
    if type(one) is not type(other):
        return False
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "equals"):
        return bool(one.equals(other))
    if type(one).__module__ == "torch":
        return bool((one == other).all()) if one.__class__.__name__ == "Tensor" else one == other
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other)


def names_of(row: Row) -> dict[str, Any]:
    names = dict(globals())
    for module in MODULES.split():
        importlib.import_module(module)
        names[module.partition(".")[0]] = sys.modules[module.partition(".")[0]]
    for name, module in LIBRARIES.items():
        names[name] = importlib.import_module(module)
    if row.needs:
        names[row.needs] = importlib.import_module(row.needs)
    return names


def fault(row: Row) -> str | None:
    """Execute a row and say what is not as it claims."""
    names = names_of(row)
    bare_target, target = eval(row.target, names), eval(row.target, names)
    proxy = Proxy(SimpleFactory(target), info=describe(target))
    bare = evaluate(row.code, names | {"p": bare_target, "t": bare_target})
    if isinstance(bare, Exception):
        return f"the object itself gives {bare!r}"
    ours = evaluate(row.code, names | {"p": proxy, "t": target})
    failed, works = isinstance(ours, Exception), same(ours, bare)
    if row.outcome == UNRESOLVED:
        right = works and not is_resolved(proxy)
    elif row.outcome == YES or (row.outcome == LATER and BUFFERS):
        right = works
    elif row.outcome == DIFFERS:
        right = not works and not failed
    else:
        right = failed
    return None if right else f"{row.outcome}, but gave {ours!r}, resolved: {is_resolved(proxy)}"


@pytest.mark.parametrize("title", SECTIONS)
def test_section(title: str) -> None:
    rows = [row for row in SECTIONS[title] if not row.needs or importlib.util.find_spec(row.needs)]
    if not rows:
        pytest.skip("its package is not installed")
    faults = {f"{row.code} with {row.target}": fault(row) for row in rows}
    assert {code: wrong for code, wrong in faults.items() if wrong} == {}


def page() -> str:
    lines = [INTRODUCTION]
    for title, rows in SECTIONS.items():
        lines += [
            f"## {title}\n",
            "| `p` is a proxy of | expression | works | note |",
            "|---" * 4 + "|",
        ]
        for row in rows:
            instead = f"use {row.instead}" if row.outcome in (NO, DIFFERS, LATER) else row.instead
            code = (row.shown or row.code).replace("|", "\\|")
            lines.append(f"| `{row.target}` | `{code}` | {row.outcome} | {instead} |")
        lines.append("")
    return "\n".join(lines)


INTRODUCTION = """# How transparent a proxy is

<!-- Made by tests/core/test_proxy_matrix.py, which executes every row. Edit the rows there. -->

A proxy forwards every operation to its target, and what is known of the target (its type, size,
shape, hash) it answers without fetching it. Python leaves three gaps: `type(p)` and `is` see the
proxy, C functions that want exactly a `str` or a `dict` refuse it, and a proxy has every special
method, whatever its target has. Where you meet one of them, `extract(p)` is the target itself:

```python
import json

from proxystore_core.factory import SimpleFactory
from proxystore_core.proxy import Proxy, extract

p = Proxy(SimpleFactory({"a": 1}))
assert p["a"] == 1
assert json.dumps(extract(p)) == '{"a": 1}'
```

A store's proxies know these things of their targets. One that you make yourself knows them if you
tell it, `Proxy(factory, info=describe(obj))`; otherwise most rows of the first table resolve it.

Tasks that get their arguments from `proxystore_parsl` meet none of this by default: their function
is called with the objects themselves.

* **yes**: as with the object itself. **yes, unresolved**: and the target is not even fetched.
* **from Python 3.12**: an error before, where a class in Python cannot offer its target's memory.
* **differs**: there is an answer, but not that of the object.
* **no**: an error.

In-place operators on an immutable target (`p += 1`) change this proxy, not what is stored.
"""


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python tests/core/test_proxy_matrix.py"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
