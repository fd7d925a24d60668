"""The command line: bce-bridge crosscheck and bce-bridge info."""

import argparse
import json
import sys

EXTRA = "pip install 'bce-bridge[crosscheck]'"


def main(arguments=None):
    """Run the command line; the exit code is 0, 1 for a failure of an implementation, 2 for bad arguments or input."""
    parser = argparse.ArgumentParser(prog="bce-bridge", description="Binary cross entropy with logits, checked across languages.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("crosscheck", help="compare every implementation with the exact values and with R torch")
    data = check.add_mutually_exclusive_group()
    data.add_argument("--dataset", choices=["infert"], help="compare loss sums on an R data set with a fitted glm instead")
    data.add_argument("--data", metavar="FILE", help="compare loss sums on .npz or .csv with logit, target[, weight, pos_weight]")
    check.set_defaults(run=_crosscheck)
    info = commands.add_parser("info", help="show versions and what is installed")
    info.set_defaults(run=_info)
    for command in (check, info):
        command.add_argument("--json", metavar="FILE", help="write everything shown to FILE as JSON")
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ImportError as error:
        print(f"bce-bridge: {error}: {EXTRA}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"bce-bridge: {error}", file=sys.stderr)
        return 2


def _write_json(path, content):
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")


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
        if text not in self.tasks:
            self.tasks[text] = self.bar.add_task(text, total=total)
        self.bar.update(self.tasks[text], completed=done + 1)


def _console():
    from rich.console import Console

    # A pipe or a file has no width: the table must not be cut there.
    return Console() if sys.stdout.isatty() else Console(width=200)


def _crosscheck(options):
    if options.dataset or options.data:
        return _loss_sums(options)
    from bce_bridge.conformance import report
    from bce_bridge.conformance.crosscheck import crosscheck

    with _Progress() as progress:
        rows = crosscheck(progress)
    console = _console()
    console.print(report.table(rows))
    for line in report.failure_lines(rows):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    failures = sum(len(row.failures) for row in rows)
    for line in (*report.notes(rows), f"{failures} failures."):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    _write_json(options.json, {"format": "bce-crosscheck/1", "rows": report.as_json(rows), "failures": failures})
    return 1 if failures else 0


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
        rows = loss_sums(dataset, progress)
    table = Table(box=box.SIMPLE_HEAD, title=f"Loss sums: {dataset.name}, n = {dataset.logits.size}", title_justify="left")
    for heading in ("implementation", "version", "loss sum", "error in ULP"):
        table.add_column(heading, justify="right" if heading.startswith(("loss", "error")) else "left")
    for row in rows:
        table.add_row(row["implementation"], row["version"], *((repr(row["sum"]), f"{row['ulp']:.2f}") if "sum" in row else ()))
    console = _console()
    console.print(table)
    for row in rows:
        if "hint" in row:
            console.print(f"{row['implementation']} is not installed: {row['hint']}", markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and value - value != 0:
                row[key] = repr(value)
    _write_json(options.json, {"format": "bce-loss-sums/1", "dataset": dataset.name, "n": dataset.logits.size, "rows": rows})
    return 0


def _info(options):
    from rich.table import Table

    from bce_bridge.versions import versions

    found = versions()
    table = Table("what", "version", title="bce_bridge", title_justify="left")
    for name, value in found.items():
        table.add_row(name, value)
    _console().print(table)
    _write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
