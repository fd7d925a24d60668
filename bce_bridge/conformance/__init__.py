"""The cross-check: cases, the exact answers to them, the implementations, their comparison and its report.

Imports everything else in the package but the benchmark; only the command line imports it. Needs mpmath and rich (pip
install 'bce-bridge[crosscheck]'), and for the page jinja2 and matplotlib ('bce-bridge[html]'). What stays from release to
release is the command line and the files that it reads and writes; the functions behind it may change.
"""
