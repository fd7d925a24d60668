"""The command line: bce-bridge crosscheck, conformance, bench and info. Imports, in each command, what that command needs."""

import argparse
import importlib.util
import json
import os
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

EXTRA = "pip install 'bce-bridge[{}]'"


def main(arguments=None):
    """Run the command line; the exit code is 0, 1 for a failure of an implementation, 2 for bad arguments or input."""
    parser = argparse.ArgumentParser(
        prog="bce-bridge", description="Binary cross entropy with logits, checked across languages."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("crosscheck", help="compare every implementation with the exact values and with R torch")
    data = check.add_mutually_exclusive_group()
    data.add_argument("--dataset", choices=["infert"], help="compare loss sums on an R data set with a fitted glm instead")
    data.add_argument(
        "--data", metavar="FILE", help="compare loss sums on .npz or .csv with logit, target[, weight, pos_weight]"
    )
    check.add_argument("--html", metavar="FILE", help="write a page with table, plots of the errors and versions to FILE")
    check.add_argument(
        "--plot", metavar="FILE", help="draw errors of the C core and libtorch against the logit to FILE, an .svg"
    )
    check.set_defaults(run=_crosscheck, extra="crosscheck")
    judge = commands.add_parser("conformance", help="judge any program's answers to the test vectors: docs/conformance.md")
    judge.add_argument("--command", required=True, metavar="TEXT", dest="program", help="the program and its arguments")
    judge.add_argument("--flag", action="append", metavar="NAME", help="only cases with this flag; may be repeated")
    judge.add_argument("--dtype", action="append", metavar="NAME", help="only cases of this dtype; may be repeated")
    judge.add_argument(
        "--ulp", type=float, default=4.0, help="the largest error that passes; 0.5 asks for correct rounding (4)"
    )
    judge.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="stop the program after these (60)")
    judge.set_defaults(run=_conformance, extra="crosscheck")
    bench = commands.add_parser("bench", help="measure times and peak memory beside torch, NumPy and the memory limit")
    bench.add_argument("--sizes", metavar="N,...", help="numbers of elements (1000,16Ki,1Mi,16Mi,64Mi up to 256 MiB)")
    bench.add_argument("--types", metavar="TYPE,...", help="float32,float32+pos_weight,bfloat16,float64")
    bench.add_argument("--threads", metavar="N,...", help="numbers of threads; all for every processor (1,all)")
    bench.add_argument("--rounds", type=int, metavar="N", help="samples of each contender (15, 9 or 5)")
    bench.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    bench.add_argument("--quick", action="store_true", help="float32 with pos_weight at 1000, 16Ki and 1Mi, in half a minute")
    bench.add_argument("--from", dest="source", metavar="FILE", help="show what --csv or --json wrote instead of measuring")
    bench.add_argument("--csv", metavar="FILE", help="write the times and ratios to FILE")
    bench.add_argument("--plot", metavar="FILE", help="draw the times to FILE, a .png, .svg or .pdf")
    bench.add_argument("--markdown", metavar="FILE", help="with --from: put the tables between the markers in FILE")
    bench.set_defaults(run=_bench, extra="bench")
    for command, text in ((check, "torch's tensors"), (bench, "the operands")):
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help=f"where {text} are (cpu)")
    info = commands.add_parser("info", help="show versions and what is installed")
    info.set_defaults(run=_info, extra="crosscheck")
    for command in (check, judge, bench, info):
        command.add_argument("--json", metavar="FILE", help="write everything shown to FILE as JSON")
    options = parser.parse_args(arguments)
    try:
        _check_instruction_set()
        _check_writable(options.json)
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except ImportError as error:
        print(f"bce-bridge: {error}: {EXTRA.format(options.extra)}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"bce-bridge: {error}", file=sys.stderr)
        return 2


def _check_device(device):
    """Raises ValueError where nothing can run on the device."""
    if device == "cpu":
        return
    if importlib.util.find_spec("torch") is None:
        raise ValueError(f"device must be 'cpu' without torch, got {device!r}: {EXTRA.format('torch')}")
    import torch

    if not torch.cuda.is_available():
        raise ValueError(f"device must be 'cpu' where torch {torch.__version__} finds no CUDA device, got {device!r}")
    if importlib.util.find_spec("triton") is None:
        raise ValueError(f"device must be 'cpu' without triton, got {device!r}: pip install triton")


def _write_json(path, content):
    if path is not None:
        _write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _write(path, text):
    """Write beside the file and rename, so that a full disk leaves no half of it; a link is followed, to nowhere too."""
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe or device
        Path(target).write_text(text, encoding="utf-8")
        return
    beside = f"{target}.{os.getpid()}"
    try:
        Path(beside).write_text(text, encoding="utf-8")
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _check_writable(*paths):
    """Raises OSError for a path that cannot be written: before the computing, not after. Leaves no new file."""
    for path in paths:
        if path is not None:
            new = not os.path.exists(path)
            open(path, "ab").close()
            if new:
                os.remove(os.path.realpath(path))  # not the link to it


def _check_instruction_set():
    """Raises ValueError where BCE_BRIDGE_ISA names one that is not to be had."""
    from bce_bridge import core

    try:
        core.build_info()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


class _Progress:
    """A progress bar on a terminal, and nothing where the output is a file."""

    def __enter__(self):
        from rich.progress import Progress

        self.bar = Progress(transient=True)
        self.bar.__enter__()
        self.tasks = {}
        return self

    def __exit__(self, *error):
        self.bar.__exit__(*error)

    def __call__(self, text, done, total):
        from rich.markup import escape

        if text not in self.tasks:
            self.tasks[text] = self.bar.add_task(escape(text), total=total)
        self.bar.update(self.tasks[text], completed=done + 1)


def _console():
    from rich.console import Console

    # A pipe or a file has no width: the table must not be cut there.
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)  # file names and commands stay as they are


def _crosscheck(options):
    _check_device(options.device)
    if options.dataset or options.data:
        for name in ("html", "plot"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} must stand without --data and --dataset: it shows the whole cross-check")
        return _loss_sums(options)
    from bce_bridge.conformance import report
    from bce_bridge.conformance.crosscheck import crosscheck

    pictured = options.html is not None or options.plot is not None
    if pictured:
        options.extra = "html"
        from bce_bridge.conformance import html, plots
        from bce_bridge.conformance.sweep import sweep

        plots.check_suffix(options.plot)
    _check_writable(options.html, options.plot)
    with _Progress() as progress:
        rows = crosscheck(progress, device=options.device)
        sweeps = sweep(progress, device=options.device) if pictured else []
    if options.html is not None:
        _write(options.html, html.page(rows, sweeps, _about(options)))
    if options.plot is not None:
        plots.write(sweeps, options.plot)
    console = _console()
    console.print(report.table(rows))
    for line in report.failure_lines(rows):
        console.print(line, style="red", soft_wrap=True)
    failures = sum(len(row.failures) for row in rows)
    for line in (*report.notes(rows), f"{failures} failures."):
        console.print(line, soft_wrap=True)
    _write_json(options.json, {"format": "bce-crosscheck/1", "rows": report.as_json(rows), "failures": failures})
    return 1 if failures else 0


def _about(options):
    """What the page says of its making: the date, the command that repeats it, the instruction set and all versions."""
    from bce_bridge import core
    from bce_bridge.versions import versions

    variables = ("BCE_BRIDGE_ISA", "BCE_BRIDGE_NUM_THREADS")
    settings = [f"{name}={shlex.quote(os.environ[name])}" for name in variables if name in os.environ]
    device = ["--device", options.device] if options.device != "cpu" else []
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join([*settings, "bce-bridge crosscheck", *device, "--html", shlex.quote(Path(options.html).name)]),
        "instruction set": core.build_info()["isa"],
        **versions(),
    }


def _conformance(options):
    from bce_bridge.conformance import runner

    cases = runner.select(options.flag, options.dtype)
    with _Progress() as progress:
        result = runner.run(options.program, cases, options.ulp, options.timeout, progress)
    console = _console()
    console.print(runner.table(result))
    for line in runner.notes(result):
        console.print(line, soft_wrap=True)
    _write_json(options.json, runner.as_json(result))
    return 0 if result.conforms else 1


def _loss_sums(options):
    from rich import box
    from rich.table import Table

    from bce_bridge import r
    from bce_bridge.conformance.datasets import from_file, infert, loss_sums

    try:
        dataset = infert() if options.dataset else from_file(options.data)
    except r.NotAvailable as error:
        print(f"bce-bridge: the data set infert needs R: {error}", file=sys.stderr)
        return 2
    with _Progress() as progress:
        rows = loss_sums(dataset, progress, options.device)
    table = Table(box=box.SIMPLE_HEAD, title=f"Loss sums: {dataset.name}, n = {dataset.logits.size}", title_justify="left")
    for heading in ("implementation", "version", "loss sum", "error in ULP"):
        table.add_column(heading, justify="right" if heading.startswith(("loss", "error")) else "left")
    for row in rows:
        table.add_row(row["implementation"], row["version"], *((repr(row["sum"]), f"{row['ulp']:.2f}") if "sum" in row else ()))
    console = _console()
    console.print(table)
    for row in rows:
        if "hint" in row:
            console.print(f"{row['implementation']} is not installed: {row['hint']}", soft_wrap=True)
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and value - value != 0:
                row[key] = repr(value)
    _write_json(options.json, {"format": "bce-loss-sums/1", "dataset": dataset.name, "n": dataset.logits.size, "rows": rows})
    return 0


def _bench_choices(options):
    """The user's choice as problems.Options. Raises ValueError for what is none."""
    from bce_bridge.benchmark import measure, problems, report

    def listed(text, default, convert):
        return tuple(dict.fromkeys(map(convert, text.split(",") if text else default)))

    def thread_count(text):
        if text != "all" and not (text.isdecimal() and int(text) > 0):
            raise ValueError(f"threads must be a whole number above 0, or all, got {text!r}")
        return measure.cores() if text == "all" else int(text)

    if options.rounds is not None and options.rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {options.rounds}")
    _check_device(options.device)
    return problems.Options(
        listed(options.sizes, ("1000", "16Ki", "1Mi") if options.quick else map(str, problems.SIZES), report.size),
        listed(options.types, ("float32+pos_weight",) if options.quick else problems.TYPES, str),
        listed(options.threads, ("1", "all") if options.device == "cpu" else ("1",), thread_count),
        not options.no_compile,
        sys.maxsize if options.sizes else problems.LARGEST,
        options.device,
    )


def _bench(options):
    from bce_bridge.benchmark import report, results

    if options.markdown and not options.source:
        raise ValueError("--markdown must stand with --from FILE, which the text names as its source")
    if options.source:
        found = results.read(options.source)
    else:
        from bce_bridge.benchmark import measure

        choices = _bench_choices(options)
        _check_writable(options.csv, options.plot)
        with _Progress() as progress:
            found = measure.run(choices, options.rounds or (5 if options.quick else None), progress)
    if options.csv:
        results.write_csv(found, options.csv)
    _write_json(options.json, results.as_json(found))
    if options.plot:
        report.plot(found, options.plot)
    if options.markdown:
        report.update_markdown(found, options.source, options.markdown)
    console = _console()
    for table in report.tables(found):
        console.print(report.rich_table(table))
    for line in report.notes(found):
        console.print(line, soft_wrap=True)
    return 0


def _info(options):
    from bce_bridge.versions import show_versions

    _write_json(options.json, show_versions())
    return 0


if __name__ == "__main__":
    sys.exit(main())
