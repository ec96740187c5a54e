"""The project's measuring house: what a sandbox costs, next to native and to what users would pick instead.

``make bench`` measures; ``bench/RESULTS.md`` keeps what it found.  The way of one figure:

* :mod:`.rows` says what is measured, one row of the tables each, and by which of :mod:`.measures`;
* :mod:`.systems` says on what: native, greenroom's platforms, and the peers of ``make peers``;
* :mod:`.rounds` lets every system take each row once in every round, in an order drawn from a printed seed;
* :mod:`.document` keeps every sample, as JSON with a documented schema;
* :mod:`.figures` makes medians and ratios of them, :mod:`.targets` and :mod:`.comparison` judge these;
* :mod:`.tables` and :mod:`.plot` show them.

What runs beside or inside the systems is in ``programs/``; it is asked by lines of text, see :mod:`.agent`.
"""
