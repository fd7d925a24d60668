"""bce-bridge bench: nanoseconds an element and peak memory, ours beside torch, NumPy and the machine's memory.

    problems.py    settings, operands, and the contenders of each section of the results
    measure.py     rounds over the contenders, and the environment they ran in
    memory.py      the peak memory of a call
    r.py, r.R      the section R, measured there: ours beside base R
    results.py     rows, their ratios and the goals; CSV and JSON
    report.py      tables for the terminal and for docs/performance.md, and the plot

May import torch, NumPy, rich, matplotlib and the rest of the package but conformance.
"""
